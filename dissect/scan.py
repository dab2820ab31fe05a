"""What one read of a layer's activations leaves behind: tails, extremes, moments and exemplars. Mergeable."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dissect import ops
from dissect.checkpoint import Arrays

_AT_ONCE = 1 << 20  # values of tails that are copied at once, if one unit has no more
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
        fill = self.fill + other.fill
        for few in self._slices():
            top = torch.cat([self._filled(few), other._filled(few)], 1).topk(self.keep, sorted=False).values
            self.tail[few, : self.keep] = top
            self.bound[few] = torch.where(fill[few] >= self.keep, top.amin(1), self.bound[few])
        self.fill = fill.clamp(max=self.keep)
        torch.minimum(self.low, other.low, out=self.low)
        torch.maximum(self.high, other.high, out=self.high)
        self.nonfinite += other.nonfinite
        self.moments += other.moments
        self.histogram += other.histogram
        self._merge_exemplars(other)

    def _slices(self) -> Iterator[slice]:
        """All units, a few at a time: a copy of all tails would not be within anybody's budget."""
        few = max(1, _AT_ONCE // max(1, self.tail.shape[1]))
        for first in range(0, len(self.fill), few):
            yield slice(first, first + few)

    def _filled(self, few: slice) -> Tensor:
        """A copy of the tails of some units with -inf in the free slots."""
        tails = self.tail[few].clone()
        for tail, fill in zip(tails, self.fill[few].tolist()):
            tail[fill:] = -math.inf
        return tails

    def sort(self) -> None:
        """Bring the tail into one defined form: the `keep` largest values, descending, zeros behind them."""
        place = torch.arange(self.keep, device=self.tail.device)
        for few in self._slices():
            top = self._filled(few).topk(self.keep).values
            self.tail[few] = 0
            self.tail[few, : self.keep] = top.masked_fill(place >= self.fill[few, None], 0)
        self.fill = self.fill.clamp(max=self.keep)

    def _merge_exemplars(self, other: "LayerScan") -> None:
        value = torch.cat([self.top_value, other.top_value], 1).numpy()
        image = torch.cat([self.top_image, other.top_image], 1).numpy()
        place = torch.cat([self.top_place, other.top_place], 1).numpy()
        free = image < 0
        order = np.lexsort((image, -value, free), axis=1)[:, : self.top_value.shape[1]]
        for name, array in (("top_value", value), ("top_image", image), ("top_place", place)):
            getattr(self, name).copy_(torch.from_numpy(np.take_along_axis(array, order, 1)))

    def ranked(self, ranks: Sequence[int]) -> Tensor:
        """The values of each unit at some ranks below `keep`, 0 that of the largest: [U, ranks] float32 on the CPU.

        -inf where a unit has fewer finite values.
        """
        places = [self.tail.shape[1] - 1 - rank for rank in ranks]

        def of(few: slice) -> Tensor:
            tails = self._filled(few).cpu().numpy()
            tails.partition(places, axis=1)  # torch would sort, and put indices beside it: three times the memory
            return torch.from_numpy(tails[:, places])

        return torch.cat([of(few) for few in self._slices()])

    def drop_tail(self) -> None:
        """Give back the memory of the tails, once thresholds are read out."""
        self.tail = self.tail[:, :0].clone()
        self.fill.zero_()

    def state(self) -> dict[str, np.ndarray]:
        """Everything needed to go on later, as arrays; of the histogram the bins in use."""
        state = {name: getattr(self, name).cpu().numpy() for name in self.NAMES}
        state["bins"] = np.flatnonzero(state["histogram"].any(1))
        return state | {"histogram": state["histogram"][state["bins"]]}

    def restore(self, state: Arrays) -> None:
        """Take up what `state` gave."""
        self._fill(state, self._tensors())

    def cut(self, blocks: Sequence[int]) -> dict[str, np.ndarray]:
        """The state of a scan of some blocks of images, without room that is free: sorted, so that its arrays depend
        on the images alone."""
        self.sort()
        state = self.state()
        return state | {"tail": state["tail"][:, : self.keep], "moments": state["moments"][list(blocks)]}

    def take(self, state: Arrays, blocks: Sequence[int]) -> None:
        """The reverse of `cut`, by an empty scan that keeps as many values."""
        tensors = self._tensors()
        tensors.pop("moments")[list(blocks)] = torch.from_numpy(state["moments"]).to(self.moments.device)
        self._fill(state, tensors | {"tail": self.tail[:, : self.keep]})

    def _tensors(self) -> dict[str, Tensor]:
        """What lies in a state as it lies here."""
        return {name: getattr(self, name) for name in self.NAMES if name != "histogram"}

    def _fill(self, state: Arrays, tensors: Mapping[str, Tensor]) -> None:
        self.histogram.zero_()
        self.histogram[state["bins"]] = torch.from_numpy(state["histogram"]).to(self.histogram.device)
        for name, tensor in tensors.items():
            if tensor.device.type == "cpu":
                state.into(name, tensor.numpy())  # tails are half of the budget: no second copy of them
            else:
                tensor.copy_(torch.from_numpy(state[name]))
