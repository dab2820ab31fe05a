"""Could chance have done as well? p-values from a null distribution, and their false discovery rate.

A draw of the null pairs the activations of each image with the labels of another one and looks for the best concept of
each unit anew; so it pays for the choice among all concepts as the unit itself does. Where activations know nothing of
what their image shows, all pairings are alike and p is uniform, whatever places masks and labels prefer. Draws that
move the labels as well ask for more, that no place is preferred, which chance does not promise.
Draws are not pooled over units: how good chance gets depends on the size and the grain of a unit's masks, which differ.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Null:
    """Best IoU of each unit on a sample of `images` images: observed [U], and under B draws of the null [B, U]."""

    images: int
    observed: np.ndarray
    drawn: np.ndarray

    @property
    def draws(self) -> int:
        return len(self.drawn)

    def p_values(self) -> np.ndarray:
        """p [U] = (1 + draws at least as good) / (1 + B) (Davison & Hinkley, 1997, section 4.2); 1 for units that meet
        nothing. None is below 1 / (1 + B)."""
        beaten = (self.drawn >= self.observed).sum(0)
        return np.where(self.observed > 0, (1 + beaten) / (1 + self.draws), 1.0)

    def expected(self) -> np.ndarray:
        """IoU that each unit's best concept has by chance, on average over the draws: float64 [U]."""
        return self.drawn.mean(0, dtype=np.float64)


def false_discovery_rates(p: np.ndarray) -> np.ndarray:
    """q [U]: the smallest rate of false discoveries at which each unit is one (Benjamini & Hochberg, 1995)."""
    count = len(p)
    order = np.argsort(-p, kind="stable")
    scaled = p[order] * count / np.arange(count, 0, -1)
    found = np.empty(count)
    found[order] = np.minimum.accumulate(np.minimum(scaled, 1.0))
    return found
