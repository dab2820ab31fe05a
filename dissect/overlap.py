"""Overlap counts of one layer: int64 totals that add up over batches, shards and machines."""

import numpy as np
import torch
from torch import Tensor

from dissect import ops
from dissect.candidates import Chunk
from dissect.labels import LabelBatch
from dissect.upsample import AxisTable


class OverlapCounts:
    """intersection [U, L] = |M_u and L_c|, area [U, K] = |M_u| over the images that count for category k, and
    mask [U] = |M_u| over all images; L = largest label number + 1. Column 0 holds unlabelled pixels."""

    NAMES = ("intersection", "area", "mask")

    def __init__(self, units: int, labels: int, categories: int, device: str = "cpu") -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        self.intersection = zeros(units, labels)
        self.area = zeros(units, categories)
        self.mask = zeros(units)

    def update(
        self,
        chunk: Chunk,
        labels: LabelBatch,
        map_size: tuple[int, int],
        axes: tuple[AxisTable, AxisTable],
        threshold: Tensor,
        primary: Tensor,
        area_rule: int,
    ) -> None:
        """Count the masks of one chunk under threshold [U]; primary [L] int16."""
        rows, columns = axes
        ops.overlap(
            *chunk.fields, *map_size, rows.node, rows.t, columns.node, columns.t, threshold,
            labels.planes, labels.plane_start, labels.scalars, labels.scalar_start, labels.held, primary, area_rule,
            self.intersection, self.area, self.mask,
        )  # fmt: skip

    def merge(self, other: "OverlapCounts") -> None:
        for name in self.NAMES:
            getattr(self, name).add_(getattr(other, name))

    def clear(self, units: Tensor) -> None:
        """Forget what units [U] bool counted (units with a NaN or Inf have no mask)."""
        for name in self.NAMES:
            getattr(self, name)[units] = 0

    def state(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name).cpu().numpy() for name in self.NAMES}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        for name in self.NAMES:
            getattr(self, name).copy_(torch.from_numpy(state[name]))
