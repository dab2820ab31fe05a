"""Label planes as the counting kernel takes them, and the totals of every label."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import broden


@dataclass(frozen=True)
class LabelBatch:
    """Labels of B images, ready for `ops.overlap`.

    planes [K, H, W] int16 (read as unsigned), plane_start [B + 1] int32, scalars [S] int32, scalar_start [B + 1]
    int32, held [B] int64: bit k is set where the image holds a label whose primary category is k.
    """

    planes: Tensor
    plane_start: Tensor
    scalars: Tensor
    scalar_start: Tensor
    held: Tensor

    def to(self, device: str) -> "LabelBatch":
        return LabelBatch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


class LabelTotals:
    """G[c] = pixels of each label over the images used, and which images hold it. Mergeable.

    block_area [B, L] int64 by block of images, images [L] int64; L = largest label number + 1. holding: the labels that
    each image holds but 0, ascending int32, in the order of the images; none for those set aside.
    """

    def __init__(self, labels: int, blocks: int = 1) -> None:
        self.block_area = np.zeros((blocks, labels), dtype=np.int64)
        self.images = np.zeros(labels, dtype=np.int64)
        self.holding: list[np.ndarray] = []

    @property
    def area(self) -> np.ndarray:
        """G [L] int64 over all blocks."""
        return self.block_area.sum(0)

    def update(self, seen: np.ndarray, block: int = 0) -> None:
        """seen [L]: pixels of each label in one image."""
        self.block_area[block] += seen
        held = np.flatnonzero(seen)
        self.images[held] += 1
        self.holding.append(held[held > 0].astype(np.int32))

    def skip(self) -> None:
        """An image that was set aside."""
        self.holding.append(np.zeros(0, np.int32))

    def merge(self, other: "LabelTotals") -> None:
        """Add the totals of images that follow."""
        self.block_area += other.block_area
        self.images += other.images
        self.holding += other.holding

    def clear(self, label: int) -> None:
        """Forget a label that never counts."""
        self.block_area[:, label] = self.images[label] = 0

    def folded(self, blocks: int) -> np.ndarray:
        """Areas [blocks, L] where block b is added to block b modulo `blocks`, a divisor of B."""
        return self.block_area.reshape(-1, blocks, self.block_area.shape[1]).sum(0)

    def category_images(self, primary: np.ndarray, categories: int) -> np.ndarray:
        """Images [K] int64 that hold a label of each category."""
        found = np.zeros(categories, np.int64)
        for held in self.holding:
            kinds = np.unique(primary[held])
            found[kinds[kinds >= 0]] += 1
        return found


def unite(planes: np.ndarray, scalars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop repetitions, so that a pixel belongs to a label once: planes [K, H, W] uint16 and scalars [S] int64.

    A label that covers the whole image as a scalar is taken out of the planes; a label that an earlier plane
    carries at the same pixel is taken out of the later one.
    """
    scalars, planes = np.unique(scalars), planes.copy()
    for scalar in scalars.tolist():
        planes[planes == scalar] = 0
    for k in range(1, len(planes)):
        for earlier in range(k):
            planes[k][planes[k] == planes[earlier]] = 0
    return planes, scalars


class LabelPacker:
    """Packs image labels for the kernel under one convention and keeps the totals.

    primary [L] int16: category index of each label, -1 where there is none (label 0 included).
    """

    def __init__(self, primary: np.ndarray, label_size: tuple[int, int], unite_planes: bool, blocks: int = 1) -> None:
        self.primary = primary
        self.label_size = label_size
        self.unite_planes = unite_planes
        self.totals = LabelTotals(len(primary), blocks)

    def pack(self, labels: Sequence["broden.ImageLabels | None"], block: int = 0) -> LabelBatch:
        """One batch; None stands for an excluded image, which holds nothing. Adds to the totals of the block."""
        pixels = self.label_size[0] * self.label_size[1]
        all_planes, all_scalars, held = [], [], []
        plane_start, scalar_start = [0], [0]
        for image in labels:
            if image is None:
                bits = 0
                self.totals.skip()
            else:
                planes, scalars = image.planes, image.scalars
                if self.unite_planes:
                    planes, scalars = unite(planes, scalars)
                seen = np.bincount(planes.reshape(-1), minlength=len(self.primary)).astype(np.int64)
                np.add.at(seen, scalars, pixels)
                self.totals.update(seen, block)
                categories = np.unique(self.primary[seen > 0])
                bits = sum(1 << int(k) for k in categories if k >= 0)
                all_planes.append(planes)
                all_scalars.append(scalars)
            held.append(bits)
            plane_start.append(sum(len(planes) for planes in all_planes))
            scalar_start.append(sum(len(scalars) for scalars in all_scalars))
        planes_array = np.concatenate(all_planes) if all_planes else np.zeros((0, *self.label_size), np.uint16)
        scalar_array = np.concatenate(all_scalars) if all_scalars else np.zeros(0, np.int64)
        return LabelBatch(
            torch.from_numpy(np.ascontiguousarray(planes_array).view(np.int16)),
            torch.tensor(plane_start, dtype=torch.int32),
            torch.from_numpy(scalar_array.astype(np.int32)),
            torch.tensor(scalar_start, dtype=torch.int32),
            torch.tensor(held, dtype=torch.int64),
        )


class LabelCache:
    """Keeps decoded labels up to a budget in bytes, so that the counting pass need not decode them again."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._labels: dict[int, broden.ImageLabels] = {}

    def put(self, position: int, labels: "broden.ImageLabels") -> None:
        size = labels.planes.nbytes + labels.scalars.nbytes
        if self.bytes + size <= self.budget:
            self._labels[position] = labels
            self.bytes += size

    def get(self, position: int) -> "broden.ImageLabels | None":
        return self._labels.get(position)
