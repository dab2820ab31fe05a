"""Histograms of activations with bins that are known before the first value is seen.

A bin is the sign, the exponent and two bits of the fraction of a float32: four bins an octave. Counts are exact and add
up over batches and shards.
"""

from dataclasses import dataclass

import numpy as np

BINS = 2048  # see csrc/core/activation.h
OTHERS = 1020  # whatever is not finite


@dataclass(frozen=True)
class Histogram:
    """The bins in use, ascending by value: edges [b + 1] float64 and count [U, b] int64. Bins that no unit uses lie
    between others only where their count is 0 for all units; values that are not finite are left out."""

    edges: np.ndarray
    count: np.ndarray

    @classmethod
    def from_table(cls, table: np.ndarray) -> "Histogram":
        """table [BINS, U] as `ops.scan` fills it."""
        order = np.concatenate([np.arange(OTHERS + BINS // 2 - 1, BINS // 2 - 1, -1), np.arange(OTHERS)])
        used = np.flatnonzero(np.any(table, axis=1)[order])
        if not len(used):
            return cls(np.zeros(1), np.zeros((table.shape[1], 0), np.int64))
        chosen = order[used[0] : used[-1] + 1]
        return cls(np.append(lower(chosen), upper(chosen[-1:])), table[chosen].T.astype(np.int64))


def lower(bins: np.ndarray) -> np.ndarray:
    """Smallest value of each bin: float64."""
    negative = bins >= BINS // 2
    inner = _bound(np.where(negative, bins - BINS // 2 + 1, bins))
    return np.where(negative, -inner, inner)


def upper(bins: np.ndarray) -> np.ndarray:
    """The value that ends each bin."""
    negative = bins >= BINS // 2
    outer = _bound(np.where(negative, bins - BINS // 2, bins + 1))
    return np.where(negative, -outer, outer)


def _bound(bins: np.ndarray) -> np.ndarray:
    """The float32 with these leading bits; the last bin ends at 2^128."""
    values = (bins.astype(np.uint32) << np.uint32(21)).view(np.float32).astype(np.float64)
    return np.where(bins >= OTHERS, 2.0**128, values)
