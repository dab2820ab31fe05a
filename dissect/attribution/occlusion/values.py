"""What flows through the incremental pass: a changed patch over a cached map, or a dense batch."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dissect.attribution.occlusion.gather import patch_gather


@dataclass
class Patch:
    """For each of K windows the part of a map that may have changed: values [K, U, h, w] from origin [K, 2] on, over
    base [1, U, H, W]; everything outside equals the base. Boxes of one size let all windows share one dense batch, so a
    box may be larger than the change in it: that lies from low to high [K, 2] (one past the end). int64, on the CPU."""

    values: Tensor
    origin: Tensor
    base: Tensor
    low: Tensor
    high: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return self.values.shape[2], self.values.shape[3]

    def cut(self, start: Tensor, size: tuple[int, int], fill: float = 0.0) -> Tensor:
        """[K, U, size] of the map as it is now, from start [K, 2] on; outside the map stands `fill`."""
        if size == self.size and torch.equal(start, self.origin):
            return self.values
        return patch_gather(self.base, self.values, self.origin, start, size, fill)

    def dense(self) -> Tensor:
        """The whole maps, [K, U, H, W]."""
        return self.cut(torch.zeros_like(self.origin), (self.base.shape[2], self.base.shape[3]))

    def over(self, values: Tensor, base: Tensor) -> "Patch":
        """Other values in the same boxes."""
        return Patch(values, self.origin, base, self.low, self.high)


def cut_base(base: Tensor, start: Tensor, size: tuple[int, int]) -> Tensor:
    """[K, U, size] of an unchanged map [1, U, H, W], from start [K, 2] on."""
    return patch_gather(base, base.new_empty(len(start), base.shape[1], 0, 0), start, start, size, 0.0)


@dataclass
class Dense:
    """The value of a step for all K windows: a batch [K, …], or whatever else a step returns."""

    values: Any
