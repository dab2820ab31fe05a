"""Overlap counts of one layer: int64 totals that add up over batches, shards and machines."""

import torch
from torch import Tensor

from dissect import ops
from dissect.chunk import Chunk
from dissect.labels import LabelBatch
from dissect.upsample import AxisTable


class OverlapCounts:
    """Counts by block of images: intersection [B, U, L] = |M_u and L_c|, area [B, U, K] = |M_u| over the images that
    count for category k, and mask [U] = |M_u| over all images; L = largest label number + 1. Column 0 of the
    intersections holds unlabelled pixels. Pages of the arrays that nothing was counted into take no memory."""

    NAMES = ("intersection", "area", "mask")

    def __init__(self, units: int, labels: int, categories: int, blocks: int = 1, device: str = "cpu") -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        self.blocks = blocks
        self.intersection = zeros(blocks, units, labels)
        self.area = zeros(blocks, units, categories)
        self.mask = zeros(units)

    @staticmethod
    def bytes_needed(units: int, labels: int, categories: int) -> int:
        """Memory of one block."""
        return 8 * units * (labels + categories)

    def update(
        self,
        chunk: Chunk,
        labels: LabelBatch,
        map_size: tuple[int, int],
        axes: tuple[AxisTable, AxisTable],
        threshold: Tensor,
        primary: Tensor,
        area_rule: int,
        block: int = 0,
    ) -> None:
        """Count the masks of one chunk under threshold [U] into a block (modulo B); primary [L] int16."""
        rows, columns = axes
        block %= self.blocks
        ops.overlap(
            *chunk.fields, *map_size, rows.node, rows.t, columns.node, columns.t, threshold,
            labels.planes, labels.plane_start, labels.scalars, labels.scalar_start, labels.held, primary, area_rule,
            self.intersection[block], self.area[block], self.mask,
        )  # fmt: skip

    def merge(self, other: "OverlapCounts") -> None:
        for name in self.NAMES:
            getattr(self, name).add_(getattr(other, name))

    def clear(self, units: Tensor) -> None:
        """Forget what units [U] bool counted (units with a NaN or Inf have no mask)."""
        if units.any():
            self.intersection[:, units] = 0
            self.area[:, units] = 0
            self.mask[units] = 0
