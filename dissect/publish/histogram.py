"""Activation histograms of a layer, from the files beside its counts, as a page can show them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reports import pages

OCTAVES = 10  # below the largest value; what is smaller shares one bin around zero


@dataclass(frozen=True)
class StoredHistogram:
    """edges [b + 1] float64 ascending, counts [U, b] int64, memory-mapped."""

    edges: np.ndarray
    counts: np.ndarray

    @classmethod
    def open(cls, edges: Path, counts: Path, units: int) -> "StoredHistogram | None":
        """The histograms of a layer of so many units; None where there are none, or not this layer's."""
        try:
            found = cls(np.load(edges, allow_pickle=False), np.load(counts, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError):
            return None
        fitting = found.counts.ndim == 2 and found.counts.shape == (units, len(found.edges) - 1)
        return found if fitting and found.counts.shape[1] else None

    def of(self, unit: int) -> pages.Histogram | None:
        """The bins that the unit uses, those around zero as one; None for a unit without finite values."""
        counts = np.asarray(self.counts[unit])
        used = np.flatnonzero(counts)
        if not len(used):
            return None
        first, last = int(used[0]), int(used[-1]) + 1
        counts, edges = counts[first:last], self.edges[first : last + 1]
        small = np.ldexp(1.0, int(np.frexp(np.abs(edges).max())[1]) - 1 - OCTAVES)
        inner = (edges[:-1] >= -small) & (edges[1:] <= small)
        if inner.any():
            left, right = int(np.argmax(inner)), len(inner) - int(np.argmax(inner[::-1]))
            counts = np.concatenate([counts[:left], [counts[left:right].sum()], counts[right:]])
            edges = np.concatenate([edges[: left + 1], edges[right:]])
        return pages.Histogram(tuple(edges.tolist()), tuple(counts.tolist()))
