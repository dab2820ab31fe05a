"""Exemplars of each unit: the images with the largest maxima, and their maps above the threshold."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from dissect.chunk import Chunk, unsigned
from dissect.scan import LayerScan


@dataclass(frozen=True)
class Exemplars:
    """value [U, E] float32, image [U, E] position (-1: none), place [U, E] = y * w + x of the maximum, and maps
    [U, E, h, w] float32. Nodes above the threshold and their neighbours hold their values, so that masks can be drawn
    exactly; all others lie at or below the threshold, and hold it."""

    value: np.ndarray
    image: np.ndarray
    place: np.ndarray
    maps: np.ndarray


class ExemplarMaps:
    """Collects the maps of the exemplars while chunks are counted."""

    def __init__(self, scan: LayerScan, threshold: torch.Tensor, size: tuple[int, int], batch_size: int) -> None:
        self.value = scan.top_value.cpu().numpy()
        self.image = scan.top_image.cpu().numpy()
        self.place = scan.top_place.cpu().numpy()
        self._size, self._batch_size = size, batch_size
        self._threshold = threshold.cpu()
        self._elsewhere = torch.where(self._threshold.isfinite(), self._threshold, torch.tensor(0.0))
        units, slots = self.image.shape
        self._maps = np.repeat(self._elsewhere.numpy(), slots * size[0] * size[1]).reshape(units, slots, -1)
        flat = self.image.reshape(-1)
        self._order = np.argsort(np.where(flat < 0, -1, flat // batch_size), kind="stable")
        self._batches = np.where(flat < 0, -1, flat // batch_size)[self._order]

    def update(self, batch: int, chunk: Chunk) -> None:
        """Take the nodes of the exemplars that lie in this batch: those above the threshold or a lower bound of it, and
        their neighbours."""
        first, last = np.searchsorted(self._batches, [batch, batch + 1])
        mine = self._order[first:last]
        if not len(mine) or not len(chunk.pair_unit):
            return
        slots = self.image.shape[1]
        unit = mine // slots
        wanted = unit * self._batch_size + (self.image.reshape(-1)[mine] - batch * self._batch_size)
        keys = chunk.pair_unit.cpu().numpy().astype(np.int64) * self._batch_size + chunk.pair_image.cpu().numpy()
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = keys[at] == wanted
        pair, target = at[found], mine[found]
        start = chunk.pair_start.cpu().numpy().astype(np.int64)
        counts = start[pair + 1] - start[pair]
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        nodes = np.repeat(start[pair], counts) + offsets
        place = unsigned(chunk.node_place.cpu().numpy())
        flat = self._maps.reshape(-1, self._size[0] * self._size[1])
        flat[np.repeat(target, counts), place[nodes]] = chunk.node_value.cpu().numpy()[nodes]

    def result(self, ring: int = 0) -> Exemplars:
        """What was collected; `ring` nodes that a convention put around the maps are taken off."""
        units, slots = self.image.shape
        height, width = self._size
        maps = torch.from_numpy(self._maps).view(units, slots, height, width)
        for map_, threshold, elsewhere in zip(maps, self._threshold, self._elsewhere):
            near = F.max_pool2d((map_ > threshold).float(), 3, 1, 1) > 0
            map_.masked_fill_(~near, float(elsewhere))
        inner = maps.numpy()[:, :, ring : height - ring, ring : width - ring]
        return Exemplars(self.value, self.image, self.place, inner)
