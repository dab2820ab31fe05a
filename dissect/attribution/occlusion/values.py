"""What flows through the incremental pass: a changed patch over a cached map, or a dense batch."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dissect.attribution.occlusion.gather import patch_gather


@dataclass
class Patch:
    """For each of K windows the part of a map that may have changed: values [K, U, h, w] from origin [K, 2] on (int64,
    CPU), over base [1, U, H, W]. Everything outside equals the base."""

    values: Tensor
    origin: Tensor
    base: Tensor

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


@dataclass
class Dense:
    """The value of a step for all K windows: a batch [K, …], or whatever else a step returns."""

    values: Any
