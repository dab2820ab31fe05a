"""A part of a layer while it is being worked on: its scan and its candidates."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dissect import conventions, reference
from dissect.candidates import CandidateStore
from dissect.chunk import Chunk
from dissect.gatherer import Gatherer
from dissect.peaks import Peaks
from dissect.plan import Part
from dissect.scan import BLOCKS, LayerScan
from dissect.setting import Setting


@dataclass
class Work:
    """`levels` holds the tails that thresholds are read from: those of the maps, or those of the maps upsampled to
    label size where the convention says so. `given` [U]: thresholds that are not to be found but used."""

    setting: Setting
    part: Part
    scan: LayerScan
    levels: LayerScan
    store: CandidateStore
    peaks: Peaks
    given: Tensor | None
    _under_way: tuple[int, Callable[[], Chunk]] | None = None

    @classmethod
    def begin(cls, setting: Setting, number: int, index: int, part: Part, keep: int | None = None) -> "Work":
        """Empty work on part `index` of pass `number`; `keep` largest values instead of those that the part needs."""
        share = len(setting.plan.passes[number])
        method, resources = setting.method, setting.resources
        keep = keep or part.keep
        places = part.height * part.width

        def scan(keep: int, exemplars: int, places: int, bins: int) -> LayerScan:
            return LayerScan(part.units, keep, exemplars, BLOCKS, places, bins, resources.device)

        bins = setting.plan.bins

        if setting.convention.values == "map":
            maps = levels = scan(keep, method.exemplars, places, bins)
        else:
            maps, levels = scan(1, method.exemplars, places, bins), scan(keep, 0, part.places, 0)
        height, width = setting.node_size(part)
        store = CandidateStore(
            Gatherer(height, width, resources.device, 1 if resources.device == "cpu" else 2),
            setting.layout(part),
            setting.plan.candidate_bytes // share,
            resources.disk // share,
            resources.folder / f"{number}-{index}",
        )
        peaks = Peaks(len(setting.data), part.units, setting.plan.every, resources.device)
        given = setting.given.get(part.layer)
        if given is not None:
            given = given[part.first : part.last].to(resources.device)
        return cls(setting, part, maps, levels, store, peaks, given)

    @property
    def bound(self) -> Tensor:
        """[U]: at all times a lower bound of the thresholds."""
        return self.levels.bound if self.given is None else self.given

    def scans(self) -> Iterator[tuple[str, LayerScan]]:
        """Its scans by name: what a saved state holds."""
        yield "maps", self.scan
        if self.levels is not self.scan:
            yield "levels", self.levels

    def values(self, maps: dict[str, Tensor]) -> Tensor:
        """The units of this part out of a batch of maps: [B, h, w, U]."""
        return maps[self.part.layer][..., self.part.first : self.part.last].contiguous()

    def measure(self, batch: int, maps: dict[str, Tensor], valid: Tensor) -> None:
        """Take a batch: statistics, tails and candidates."""
        values = self.values(maps)
        first = batch * self.setting.method.batch_size
        block = batch % BLOCKS
        peak = self.scan.update(values.flatten(1, 2), valid, first, block)
        self.peaks.update(first, peak)
        if self.levels is not self.scan:
            for i in range(len(values)):  # one image at a time: maps of label size are large
                self.levels.update(self._upsampled(values[i : i + 1]), valid[i : i + 1], first + i, block)
        started = batch, self._start_gather(values, peak, self.bound)
        self.settle()
        self._under_way = started
        if not values.is_cuda:
            self.settle()

    def settle(self) -> None:
        """Put the batch whose candidates are still being gathered into the store."""
        if self._under_way is not None:
            batch, chunk = self._under_way
            self._under_way = None
            self.store.put(batch, chunk(), self.bound)

    def candidates(self, batch: int, fresh: dict[str, Tensor], valid: Tensor, threshold: Tensor) -> Chunk:
        """The nodes of a batch above threshold [U], or above a lower bound of it, and their neighbours: from the store,
        or from maps that were made again, those in `fresh`, or made here where the store finds its file damaged."""
        kept = self.store.get(batch)
        if kept is not None:
            return kept
        fresh = fresh or next(self.setting.measured_again([batch]))
        values = self.values(fresh)
        peak = torch.where(values.isfinite(), values, -torch.inf).amax((1, 2))
        peak[~valid.to(peak.device)] = -torch.inf
        return self._start_gather(values, peak, threshold)()

    def _upsampled(self, values: Tensor) -> Tensor:
        """maps [1, h, w, U] -> [1, H * W, U] under the convention's anchoring and border."""
        convention = self.setting.convention
        rows, columns = convention.axes((self.part.height, self.part.width), self.setting.data.label_size)
        nodes = conventions.pad_ring(values) if convention.pads else values
        tables = (rows.node, rows.t, columns.node, columns.t)
        dense = reference.upsample(nodes.permute(0, 3, 1, 2), *(table.to(nodes.device) for table in tables))
        return dense.flatten(2).transpose(1, 2).contiguous()

    def _start_gather(self, values: Tensor, peak: Tensor, bound: Tensor) -> Callable[[], Chunk]:
        if self.setting.convention.pads:
            values = conventions.pad_ring(values)
        return self.store.gatherer.start(values.flatten(1, 2), peak, bound)
