"""The largest activation of each unit in each image, and how well it ranks the images that hold a concept.

Average precision needs no threshold. It asks about images, not pixels: of all that hold something of the concept's
category, do those that hold the concept come first when they are sorted by the unit's peak? Peaks of all images are
kept where they fit into their share of the memory, else those of every so-many-th image: the figure of a sample.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dissect import ops

FEWEST = 10
"""Images of the sample that must hold a concept: of fewer, a ranking says little."""
_AT_ONCE = 1 << 23  # values of one table of precisions


def stride(images: int, units: int, budget: int) -> int:
    """1 where the peaks of all images fit into a budget in bytes, else the least s such that those of every s-th do."""
    rows = max(1, budget // (4 * units))
    return -(-images // rows)


def bytes_of(images: int, units: int, every: int) -> int:
    """Memory of the peaks of `units` units, in bytes."""
    return 4 * units * -(-images // every)


class Peaks:
    """value [rows, U] float32: row r is image r * every of `images`; -inf where it was set aside or not yet seen."""

    def __init__(self, images: int, units: int, every: int, device: str = "cpu") -> None:
        self.every = every
        rows = -(-images // every)
        self.value = torch.full((rows, units), -math.inf, dtype=torch.float32, device=device)

    def rows(self, first: int, last: int) -> slice:
        """Rows of the images first..last (end excluded)."""
        return slice(-(-first // self.every), -(-last // self.every))

    def update(self, first: int, peak: Tensor) -> None:
        """peak [B, U] of the images from `first` on."""
        self.value[self.rows(first, first + len(peak))] = peak[-first % self.every :: self.every]

    def cut(self, spans: Sequence[range]) -> np.ndarray:
        """The rows of some spans of images, one after another."""
        value = self.value.cpu().numpy()
        return np.concatenate([value[:0]] + [value[self.rows(span.start, span.stop)] for span in spans])

    def take(self, cut: np.ndarray, spans: Sequence[range]) -> None:
        """The inverse of `cut`: other rows stay."""
        first = 0
        for span in spans:
            rows = self.rows(span.start, span.stop)
            self.value[rows] = torch.from_numpy(cut[first : first + rows.stop - rows.start])
            first += rows.stop - rows.start


def average_precision(
    peaks: np.ndarray, holding: Sequence[np.ndarray], primary: np.ndarray, unit: np.ndarray, concept: np.ndarray
) -> np.ndarray:
    """Average precision [P] float64 of P pairs, sorted by unit; NaN where fewer than FEWEST images hold the concept.

    peaks [N, U] of N images, which hold the labels `holding`; primary [L] category of each label or -1. It is the mean,
    over the images that hold the concept, of the share of such images among those of its category with a peak at least
    as large: 1 where they all come first, their share among all where the unit cannot tell. Equal peaks are one step.
    """
    start = torch.from_numpy(np.cumsum([0] + [len(held) for held in holding]))
    numbers = np.concatenate([np.zeros(0, np.int32), *holding])
    table = torch.from_numpy(primary.astype(np.int16))
    found = np.empty(len(unit))
    step = max(1, _AT_ONCE // (len(primary) + len(peaks)))
    for first in range(0, peaks.shape[1], step):
        block = np.ascontiguousarray(peaks[:, first : first + step].T)
        precision = torch.empty((len(block), len(primary)), dtype=torch.float64)
        ops.ranking(torch.from_numpy(block), start, torch.from_numpy(numbers), table, precision)
        mine = slice(*np.searchsorted(unit, [first, first + len(block)]))
        found[mine] = precision.numpy()[unit[mine] - first, concept[mine]]
    found[np.bincount(numbers, minlength=len(primary))[concept] < FEWEST] = np.nan
    return found
