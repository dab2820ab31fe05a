"""Exact thresholds from the tails of the largest values."""

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from dissect.conventions import Convention
from dissect.errors import SpecError
from dissect.scan import LayerScan


@dataclass(frozen=True)
class Thresholds:
    """threshold [U] float32 with P(a > T) = q; n values per unit, of which k lie above (ties outside); lowest [U]: the
    smallest value of the tail that went into the read-out."""

    threshold: Tensor
    n: int
    k: int
    lowest: Tensor


def tail_length(convention: Convention, quantile: float, n: int) -> int:
    """How many of the largest of n values must be kept to read the threshold out."""
    return math.ceil(convention.rank(quantile, n)) + 1


def _rank(convention: Convention, quantile: float, n: int) -> Fraction:
    """Position of the threshold among n values. Raises SpecError where there are too few."""
    rank = convention.rank(quantile, n)
    if rank < 1:
        needed = math.ceil(1 / quantile)
        raise SpecError(
            f"too few images: quantile {quantile:g} of {n} activations per unit keeps none; "
            f"at least {needed} are needed (more images, an earlier layer, or a larger --quantile)"
        )
    return rank


def select(scan: LayerScan, convention: Convention, quantile: float, n: int) -> Thresholds:
    """Read the thresholds for n values per unit (those of the images really used) out of a finished scan.

    Raises SpecError where floor(q n) is 0: there are too few images for this quantile.
    """
    rank = _rank(convention, quantile, n)
    upper = int(rank)
    threshold, lowest = scan.ranked([upper, math.ceil(rank)]).unbind(1)
    if rank != upper:
        threshold = (threshold.double() + float(rank - upper) * (lowest.double() - threshold.double())).float()
    return Thresholds(torch.where(threshold.isfinite(), threshold, torch.tensor(math.inf)), n, upper, lowest)


def given(threshold: Tensor, convention: Convention, quantile: float, n: int) -> Thresholds:
    """Thresholds [U] from elsewhere, with the n and k that they would have had here."""
    return Thresholds(threshold, n, int(convention.rank(quantile, n)), threshold)
