"""What a run finds: counts and statistics per layer, and what it took."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

import broden
from dissect.exemplars import Exemplars
from dissect.histogram import Histogram
from dissect.labels import LabelTotals
from dissect.statistics.null import Null


@dataclass(frozen=True)
class LayerResult:
    """Counts and statistics of one layer: U units, L labels, K categories, E exemplars, B blocks of images.

    intersection [U, L], area [U, K], mask [U] int64; threshold, low, high, mean, std [U]; nonfinite [U] int64 (how
    many values); n values per unit that the quantile ran over, of which k lie above the threshold.
    block_intersection [B, U, L] and block_area [B, U, K] int64 are the same counts by block of images and add up to
    them (but for column 0, which holds unlabelled pixels); B = 0 where the memory for them was not there.
    histogram: of all activations, None where there was no memory for it. null: None where none was asked for.
    peaks [rows, U] float32: largest activation in every so-many-th image (see `peaks`).
    """

    layer: str
    map_size: tuple[int, int]
    n: int
    k: int
    threshold: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    nonfinite: np.ndarray
    intersection: np.ndarray
    area: np.ndarray
    mask: np.ndarray
    exemplars: Exemplars
    block_intersection: np.ndarray
    block_area: np.ndarray
    histogram: Histogram | None
    null: Null | None
    peaks: np.ndarray

    @property
    def units(self) -> int:
        return len(self.threshold)

    @property
    def dead(self) -> np.ndarray:
        """Constant units."""
        return (self.low >= self.high) & (self.nonfinite == 0)

    @property
    def saturated(self) -> np.ndarray:
        """Units whose threshold is their maximum: an empty mask."""
        return (self.threshold >= self.high) & ~self.dead & (self.nonfinite == 0)


_PER_UNIT = ("threshold", "low", "high", "mean", "std", "nonfinite", "area", "mask")
_PER_BLOCK = ("block_intersection", "block_area")


def join(pieces: Sequence[LayerResult], whole: Callable[[list[np.ndarray]], np.ndarray]) -> LayerResult:
    """One result from ranges of units of one layer; `whole` puts their intersections together."""
    if len(pieces) == 1:
        return pieces[0]
    blocks = min(len(piece.block_area) for piece in pieces)
    if any(len(piece.block_area) != blocks for piece in pieces):
        blocks = 0

    def stack(parts: Sequence[object], name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    arrays: dict[str, Any] = {name: stack(pieces, name) for name in _PER_UNIT}
    arrays["intersection"] = whole([piece.intersection for piece in pieces])
    arrays |= {name: np.concatenate([getattr(p, name)[:blocks] for p in pieces], axis=1) for name in _PER_BLOCK}
    arrays["peaks"] = np.concatenate([piece.peaks for piece in pieces], axis=1)
    tops = [piece.exemplars for piece in pieces]
    exemplars = Exemplars(*(stack(tops, f.name) for f in fields(Exemplars)))
    nulls = [piece.null for piece in pieces if piece.null is not None]
    null = None
    if nulls:
        drawn = np.concatenate([item.drawn for item in nulls], axis=1)
        null = Null(nulls[0].images, np.concatenate([item.observed for item in nulls]), drawn)
    return replace(pieces[0], exemplars=exemplars, histogram=None, null=null, **arrays)


@dataclass
class Timings:
    """Seconds that the loop spent in each phase."""

    forward_s: float = 0.0
    decode_s: float = 0.0
    threshold_s: float = 0.0
    overlap_s: float = 0.0
    null_s: float = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - start)


@dataclass(frozen=True)
class Result:
    """A finished run: results by layer, label totals, faults of excluded images, and what it took: bytes that the
    cache folder held at most, and of candidates that left the memory for want of room. every: the images whose peaks
    were kept, every so-many-th."""

    layers: dict[str, LayerResult]
    totals: LabelTotals
    images: int
    faults: tuple[broden.Fault, ...]
    timings: Timings
    forwarded_again: int
    disk_bytes: int
    spilled_bytes: int
    step: int | None
    every: int
    notes: list[str] = field(default_factory=list)
