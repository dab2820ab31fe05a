"""What one read of a layer's activations leaves behind: tails, extremes, moments and exemplars. Mergeable."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dissect import ops

BLOCKS = 64
"""Batch b belongs to block b % BLOCKS, in every run. Moments are summed per block, so that they do not depend on how a
run is cut; shards are sets of blocks, and so are the groups of images that intervals are computed from. Neighbouring
images, often of one source, thus fall into different blocks."""


class LayerScan:
    """Per-unit statistics of one layer over any set of batches.

    units U; keep = number of largest values to hold (k + 1 of the final threshold or more);
    exemplars E images per unit; places P = h * w. `update` adds a batch, `merge` another scan of other images, both
    in any order.

    tail [U, cap] float32 with fill [U]; bound [U] is at all times a lower bound of the keep-th largest value of
    all images seen, -inf until there are enough of them. moments [blocks, U, 2] float64 (sum, sum of squares).
    histogram [bins, U] int32, bins = 0 or histogram.BINS.
    """

    NAMES = (
        "tail", "fill", "bound", "low", "high", "nonfinite", "moments", "histogram", "top_value", "top_image",
        "top_place",
    )  # fmt: skip
    SAVED = (*NAMES, "bins")

    def __init__(
        self, units: int, keep: int, exemplars: int, blocks: int, places: int = 0, bins: int = 0, device: str = "cpu"
    ) -> None:
        self.keep = keep
        capacity = self._capacity(keep, places)

        def full(shape: tuple[int, ...], value: float, dtype: torch.dtype) -> Tensor:
            return torch.full(shape, value, dtype=dtype, device=device)

        f32, i64 = torch.float32, torch.int64
        self.tail = full((units, capacity), 0, f32)
        self.fill = full((units,), 0, i64)
        self.bound = full((units,), -math.inf, f32)
        self.low = full((units,), math.inf, f32)
        self.high = full((units,), -math.inf, f32)
        self.nonfinite = full((units,), 0, i64)
        self.moments = full((blocks, units, 2), 0, torch.float64)
        self.histogram = torch.zeros((bins, units), dtype=torch.int32, device=device)
        self.top_value = full((units, exemplars), 0, f32)
        self.top_image = full((units, exemplars), -1, i64)
        self.top_place = full((units, exemplars), 0, i64)

    @staticmethod
    def _capacity(keep: int, places: int) -> int:
        """Slots of a tail: room for a map beyond what is kept (the CUDA twin selects between maps), at least a quarter
        more, so that selecting stays cheap."""
        return keep + max(256, keep // 4, places)

    @classmethod
    def tail_bytes(cls, keep: int, places: int = 0) -> int:
        """Memory of the tail of a unit, which `drop_tail` gives back."""
        return 4 * cls._capacity(keep, places)

    @staticmethod
    def other_bytes(exemplars: int, blocks: int, bins: int = 0) -> int:
        """Memory of everything else of a unit."""
        return 20 * exemplars + 16 * blocks + 4 * bins + 28

    def update(self, maps: Tensor, valid: Tensor, first_image: int, block: int) -> Tensor:
        """maps [B, P, U] float32, valid [B] bool; returns the peak of each map [B, U]."""
        peak = torch.empty(maps.shape[0], maps.shape[2], dtype=torch.float32, device=maps.device)
        ops.scan(
            maps, valid, first_image, self.keep, self.tail, self.fill, self.bound, self.low, self.high, self.nonfinite,
            self.moments[block], self.histogram, self.top_value, self.top_image, self.top_place, peak,
        )  # fmt: skip
        return peak

    def merge(self, other: "LayerScan") -> None:
        """Add a scan of other images with the same units, keep, exemplars and blocks."""
        values = torch.cat([self._filled(), other._filled()], 1)
        fill = self.fill + other.fill
        count = min(self.keep, values.shape[1])
        self.tail[:, :count] = values.topk(count, sorted=False).values
        self.fill = fill.clamp(max=self.keep)
        full = fill >= self.keep
        self.bound[full] = self.tail[full, : self.keep].amin(1)
        torch.minimum(self.low, other.low, out=self.low)
        torch.maximum(self.high, other.high, out=self.high)
        self.nonfinite += other.nonfinite
        self.moments += other.moments
        self.histogram += other.histogram
        self._merge_exemplars(other)

    def _filled(self) -> Tensor:
        """The tail with -inf in the free slots."""
        free = torch.arange(self.tail.shape[1], device=self.tail.device) >= self.fill[:, None]
        return self.tail.masked_fill(free, -math.inf)

    def sort(self) -> None:
        """Bring the tail into one defined form: the `keep` largest values, descending, zeros behind them."""
        count = min(self.keep, self.tail.shape[1])
        sorted_tail = self._filled().topk(count).values
        self.fill = self.fill.clamp(max=self.keep)
        self.tail.zero_()
        self.tail[:, :count] = sorted_tail.masked_fill(
            torch.arange(count, device=self.tail.device) >= self.fill[:, None], 0
        )

    def _merge_exemplars(self, other: "LayerScan") -> None:
        value = torch.cat([self.top_value, other.top_value], 1).numpy()
        image = torch.cat([self.top_image, other.top_image], 1).numpy()
        place = torch.cat([self.top_place, other.top_place], 1).numpy()
        free = image < 0
        order = np.lexsort((image, -value, free), axis=1)[:, : self.top_value.shape[1]]
        for name, array in (("top_value", value), ("top_image", image), ("top_place", place)):
            getattr(self, name).copy_(torch.from_numpy(np.take_along_axis(array, order, 1)))

    def largest(self, ranks: int) -> Tensor:
        """The `ranks` largest values of each unit, descending: [U, ranks] float32.

        -inf where a unit has fewer finite values; ranks <= keep.
        """
        sorted_tail = torch.empty(len(self.fill), ranks)
        tail, fill = self.tail.cpu(), self.fill.tolist()
        for u, filled in enumerate(fill):
            top = tail[u, :filled].topk(min(ranks, filled)).values
            sorted_tail[u, : len(top)] = top
            sorted_tail[u, len(top) :] = -math.inf
        return sorted_tail

    def drop_tail(self) -> None:
        """Give back the memory of the tails, once thresholds are read out."""
        self.tail = self.tail[:, :0].clone()
        self.fill.zero_()

    def state(self) -> dict[str, np.ndarray]:
        """Everything needed to go on later, as arrays; of the histogram the bins in use."""
        state = {name: getattr(self, name).cpu().numpy() for name in self.NAMES}
        state["bins"] = np.flatnonzero(state["histogram"].any(1))
        return state | {"histogram": state["histogram"][state["bins"]]}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        histogram = np.zeros(self.histogram.shape, np.int32)
        histogram[state["bins"]] = state["histogram"]
        for name in self.NAMES:
            getattr(self, name).copy_(torch.from_numpy(histogram if name == "histogram" else state[name]))

    def cut(self, blocks: Sequence[int]) -> dict[str, np.ndarray]:
        """The state of a scan of some blocks of images, without room that is free: sorted, so that its arrays depend
        on the images alone."""
        self.sort()
        state = self.state()
        return state | {"tail": state["tail"][:, : self.keep], "moments": state["moments"][list(blocks)]}

    def take(self, state: Mapping[str, np.ndarray], blocks: Sequence[int]) -> None:
        """The reverse of `cut`."""
        moments, tail = np.zeros(self.moments.shape), np.zeros(self.tail.shape, np.float32)
        moments[list(blocks)] = state["moments"]
        tail[:, : state["tail"].shape[1]] = state["tail"]
        self.restore({**state, "moments": moments, "tail": tail})
