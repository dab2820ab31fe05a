"""Draws of the null: labels of other images under the activations of a sample; counted by the same kernel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import broden
from dissect.chunk import Chunk
from dissect.labels import LabelBatch, unite
from dissect.overlap import OverlapCounts
from dissect.progress import Progress
from dissect.setting import Setting
from dissect.statistics.null import Null
from dissect.upsample import AxisTable
from dissect.work import Work

SHARE, MOST = 8, 1024
"""The sample is one image in eight, at most 1,024: 200 draws then cost about as much as the run."""
FEWEST = 10
"""Concepts that fewer images of the sample hold do not compete in it: one image can fill such a concept by chance."""


@dataclass(frozen=True)
class _Image:
    """Labels of one image, each pixel once, and which categories it holds (see `LabelBatch`)."""

    planes: np.ndarray
    scalars: np.ndarray
    held: int

    def moved(self, by: tuple[int, int]) -> np.ndarray:
        """Its planes rolled around the edges."""
        return np.roll(self.planes, by, axis=(1, 2))


class NullSample:
    """Collects every so many batches while they are counted, then draws."""

    def __init__(
        self,
        setting: Setting,
        work: Sequence[Work],
        axes: Sequence[tuple[AxisTable, AxisTable]],
        thresholds: Sequence[Tensor],
    ) -> None:
        self.setting, self.work, self.axes, self._thresholds = setting, work, axes, thresholds
        batches = len(setting.batches)
        wanted = min(MOST, max(64, len(setting.data) // SHARE))
        self._every = max(1, batches * setting.method.batch_size // wanted)
        self._chunks: list[tuple[Chunk, ...]] = []
        self._slots: list[list[int]] = []  # per batch, the number of the image in each slot, -1 where it was set aside
        self._images: list[_Image] = []
        self._area = np.zeros(len(setting.primary), np.int64)
        self._held = np.zeros(len(setting.primary), np.int64)

    def add(self, batch: int, chunks: Sequence[Chunk], labels: Sequence["broden.ImageLabels | None"]) -> None:
        """Take a batch if it belongs to the sample."""
        if batch % self._every:
            return
        slots = []
        for image in labels:
            slots.append(-1 if image is None else len(self._images))
            if image is not None:
                self._images.append(self._prepared(image))
        self._chunks.append(
            tuple(
                item.store.gatherer.prune(chunk, level).clone()
                for item, chunk, level in zip(self.work, chunks, self._thresholds)
            )
        )
        self._slots.append(slots)

    def _prepared(self, image: "broden.ImageLabels") -> _Image:
        planes, scalars = image.planes, image.scalars
        if self.setting.convention.unite:
            planes, scalars = unite(planes, scalars)
        primary = self.setting.primary.numpy()
        seen = np.bincount(planes.reshape(-1), minlength=len(primary)).astype(np.int64)
        height, width = self.setting.data.label_size
        np.add.at(seen, scalars, height * width)
        seen[0] = 0
        self._area += seen
        self._held += seen > 0
        held = sum(1 << int(k) for k in np.unique(primary[seen > 0]) if k >= 0)
        return _Image(planes, scalars, held)

    def draw(self, draws: int, shifts: bool = False) -> list[Null]:
        """The null of each part from `draws` seeded draws; with `shifts` the labels are moved as well."""
        random = np.random.Generator(np.random.PCG64(0))
        count = len(self._images)
        still = np.zeros((count, 2), np.int64)
        observed = self._best(np.arange(count), still)
        drawn: list[list[np.ndarray]] = [[] for _ in self.work]
        progress = Progress("null", draws, 0, "draws")
        for _ in range(draws):
            order = random.permutation(count)
            other = np.empty(count, np.int64)
            other[order] = np.roll(order, 1)  # one cycle through all images: no image keeps its own labels
            moves = still
            if shifts:
                moves = np.stack([random.integers(0, side, count) for side in self.setting.data.label_size], 1)
            for part, best in enumerate(self._best(other, moves)):
                drawn[part].append(best)
            progress.advance(1)
        progress.close()
        return [Null(count, seen, np.stack(best)) for seen, best in zip(observed, drawn)]

    def _best(self, other: np.ndarray, moves: np.ndarray) -> list[np.ndarray]:
        """Best IoU [U] of each part where image i has the labels of image other[i], moved by moves[i]."""
        setting = self.setting
        primary = setting.primary.to(setting.resources.device)
        counts = [
            OverlapCounts(item.part.units, len(primary), len(setting.data.categories), 1, setting.resources.device)
            for item in self.work
        ]
        for chunks, slots in zip(self._chunks, self._slots):
            packed = self._packed(slots, other, moves).to(setting.resources.device)
            for item, chunk, axes, threshold, count in zip(self.work, chunks, self.axes, self._thresholds, counts):
                count.update(
                    chunk, packed, setting.node_size(item.part), axes, threshold, primary, setting.convention.area
                )
        return [self._best_iou(count) for count in counts]

    def _packed(self, slots: Sequence[int], other: np.ndarray, moves: np.ndarray) -> LabelBatch:
        planes, scalars, held = [], [], []
        plane_start, scalar_start = [0], [0]
        for slot in slots:
            image = self._images[other[slot]] if slot >= 0 else None
            if image is not None:
                planes.append(image.moved((int(moves[slot, 0]), int(moves[slot, 1]))))
                scalars.append(image.scalars)
            held.append(image.held if image is not None else 0)
            plane_start.append(plane_start[-1] + (len(image.planes) if image is not None else 0))
            scalar_start.append(scalar_start[-1] + (len(image.scalars) if image is not None else 0))
        height, width = self.setting.data.label_size
        whole = np.concatenate(planes) if planes else np.zeros((0, height, width), np.uint16)
        numbers = np.concatenate(scalars) if scalars else np.zeros(0, np.int64)
        return LabelBatch(
            torch.from_numpy(np.ascontiguousarray(whole).view(np.int16)),
            torch.tensor(plane_start, dtype=torch.int32),
            torch.from_numpy(numbers.astype(np.int32)),
            torch.tensor(scalar_start, dtype=torch.int32),
            torch.tensor(held, dtype=torch.int64),
        )

    def _best_iou(self, counts: OverlapCounts) -> np.ndarray:
        primary = self.setting.primary.numpy()
        numbers = np.flatnonzero((primary >= 0) & (self._held >= FEWEST))
        meeting = counts.intersection[0].cpu().numpy()[:, numbers]
        area = counts.area[0].cpu().numpy()[:, primary[numbers]]
        union = area + self._area[numbers] - meeting
        if not len(numbers):
            return np.zeros(len(meeting))
        best: np.ndarray = (meeting / np.maximum(union, 1)).max(1)
        return best
