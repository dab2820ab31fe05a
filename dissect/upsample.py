"""Where each label pixel lies between the nodes of a low-resolution map: one table per axis.

The tables are the only place where an anchoring is spelt out; kernels and reference just follow them. Fractions
are computed from integers and rounded once, so that every back end starts from the same bits.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class AxisTable:
    """node [T, 2] int32: the two source nodes of each of T targets; t [T] float32: the way from one to the other."""

    node: Tensor
    t: Tensor

    def __len__(self) -> int:
        return self.t.shape[0]

    def to(self, device: str) -> "AxisTable":
        return AxisTable(self.node.to(device), self.t.to(device))


def half_pixel(sources: int, targets: int) -> AxisTable:
    """Half-pixel centres, edges repeated (torch `align_corners=False`): target i reads source (i + 1/2) s / t - 1/2."""
    numerator = (2 * np.arange(targets, dtype=np.int64) + 1) * sources - targets  # in units of 1 / (2 targets)
    lower = numerator // (2 * targets)
    t = (numerator - lower * 2 * targets) / (2 * targets)
    return _table(lower, t, sources)


def anchored(sources: int, targets: int, first: float, step: float) -> AxisTable:
    """Nodes at target pixels `first + i * step`, edges repeated (receptive-field anchoring of the original)."""
    position = (np.arange(targets, dtype=np.float64) - first) / step
    lower = np.floor(position).astype(np.int64)
    return _table(lower, position - lower, sources)


def _table(lower: np.ndarray, t: np.ndarray, sources: int) -> AxisTable:
    outside = (lower < 0) | (lower >= sources - 1)
    low = np.clip(lower, 0, sources - 1)
    high = np.where(outside, low, low + 1)
    node = np.stack([low, high], axis=1).astype(np.int32)
    return AxisTable(torch.from_numpy(node), torch.from_numpy(np.where(outside, 0.0, t).astype(np.float32)))
