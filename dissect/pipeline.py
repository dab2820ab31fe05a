"""Network dissection on one page.

    images -> activations -> tails and candidates      (one forward pass over all images)
                          -> thresholds                (exact, by selection)
    candidates + labels   -> overlap counts            (no forward pass, except for what did not fit)
                          -> results per layer

Every stage is a mergeable accumulator over batches of a fixed grid; what is kept where never changes a count.
"""

import copy
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import broden
from dissect import checkpoint, conventions, reference, thresholds
from dissect.candidates import CandidateStore, Chunk, Gatherer
from dissect.errors import DissectError, SpaceError, SpecError
from dissect.exemplars import ExemplarMaps, Exemplars
from dissect.forward import Forward
from dissect.labels import LabelCache, LabelPacker, LabelTotals
from dissect.overlap import OverlapCounts
from dissect.plan import Part, Plan, make_plan
from dissect.progress import Progress
from dissect.scan import BLOCKS, LayerScan, block_size


@dataclass(frozen=True)
class Method:
    """What is computed: everything here belongs to a run's identity."""

    layers: tuple[str, ...]
    convention: str = "exact"
    quantile: float = 0.005
    batch_size: int = 32
    input_size: int | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    dtype: str = "float32"
    exemplars: int = 10


@dataclass(frozen=True)
class Resources:
    """With what it is computed: nothing here changes a number. memory and disk in bytes."""

    folder: Path
    device: str = "cpu"
    workers: int | None = None
    memory: int = 1280 << 20
    disk: int = 8 << 30
    checkpoint_seconds: float = 60.0  # 0: after every batch


@dataclass(frozen=True)
class LayerResult:
    """Counts and statistics of one layer: U units, L labels, K categories, E exemplars.

    intersection [U, L], area [U, K], mask [U] int64; threshold, low, high, mean, std [U]; nonfinite [U] int64 (how
    many values); n values per unit that the quantile ran over, of which k lie above the
    threshold.
    """

    layer: str
    map_size: tuple[int, int]
    n: int
    k: int
    threshold: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    nonfinite: np.ndarray
    intersection: np.ndarray
    area: np.ndarray
    mask: np.ndarray
    exemplars: Exemplars

    @property
    def units(self) -> int:
        return len(self.threshold)

    @property
    def dead(self) -> np.ndarray:
        """Constant units."""
        return (self.low >= self.high) & (self.nonfinite == 0)

    @property
    def saturated(self) -> np.ndarray:
        """Units whose threshold is their maximum: an empty mask."""
        return (self.threshold >= self.high) & ~self.dead & (self.nonfinite == 0)


@dataclass
class Timings:
    """Seconds that the loop spent in each phase."""

    forward_s: float = 0.0
    decode_s: float = 0.0
    threshold_s: float = 0.0
    overlap_s: float = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - start)


@dataclass(frozen=True)
class Result:
    """A finished run: results by layer, label totals, faults of excluded images, and what it took."""

    layers: dict[str, LayerResult]
    totals: LabelTotals
    images: int
    faults: tuple[broden.Fault, ...]
    timings: Timings
    forwarded_again: int
    disk_bytes: int
    step: int | None
    notes: list[str] = field(default_factory=list)


@dataclass
class _Work:
    """One part while it is being worked on. `levels` holds the tails that thresholds are read from: those of the maps,
    or those of the maps upsampled to label size where the convention says so."""

    part: Part
    scan: LayerScan
    levels: LayerScan
    store: CandidateStore


def dissect(
    module: nn.Module,
    data: broden.Dataset,
    method: Method,
    resources: Resources,
    announce: Callable[[str], None] = lambda line: None,
    own: bool = False,
) -> Result:
    """Dissect layers of a module on a concept set; goes on from a checkpoint in `resources.folder` if there is one.

    The module is left as it was found: the work is done on a copy, unless the caller says that it is `own` to
    convert to another device, dtype and memory layout. Raises SpecError (layer, data), SpaceError (memory, disk).
    """
    if not len(data):
        raise SpecError(f"data set {data.name!r} has no images to use")
    module = module if own else copy.deepcopy(module)
    with Forward(module, method.layers, method.mean, method.std, resources.device, method.dtype) as forward:
        shapes = forward.shapes(_image_size(data, method))
        convention = conventions.get(method.convention)
        plan = make_plan(
            shapes, data.label_size, len(data), convention, method.quantile, method.exemplars, resources.memory
        )
        announce(plan.sentence())
        return _Run(data, method, resources, forward, plan, announce).result()


def _image_size(data: broden.Dataset, method: Method) -> tuple[int, int]:
    return (method.input_size, method.input_size) if method.input_size else data.image_size


class _Run:
    """The passes of one plan and what they leave behind."""

    def __init__(
        self,
        data: broden.Dataset,
        method: Method,
        resources: Resources,
        forward: Forward,
        plan: Plan,
        announce: Callable[[str], None],
    ) -> None:
        self.data, self.method, self.resources, self.forward, self.plan = data, method, resources, forward, plan
        self.announce = announce
        self.convention = conventions.get(method.convention)
        self.primary = torch.from_numpy(np.array(data.labels.primary, np.int16))
        self.block = block_size(len(data), method.batch_size)
        self.valid = np.ones(len(data), bool)
        self.faults: dict[int, broden.Fault] = {}
        self.timings = Timings()
        self.cache = LabelCache(plan.label_bytes)
        self.totals: LabelTotals | None = None
        self.forwarded_again = 0
        self.disk_bytes = 0

    def result(self) -> Result:
        pieces: list[list[LayerResult]] = []
        for number, parts in enumerate(self.plan.passes):
            work = [self._begin(number, i, part) for i, part in enumerate(parts)]
            self._measure(number, work)
            pieces.append(self._count(work))
            self.disk_bytes = max(self.disk_bytes, sum(item.store.peak_disk_bytes for item in work))
        shutil.rmtree(self.resources.folder, ignore_errors=True)
        layers = {}
        for layer in self.method.layers:
            layers[layer] = _join([piece for group in pieces for piece in group if piece.layer == layer])
        assert self.totals is not None
        faults = tuple(self.faults[position] for position in sorted(self.faults))
        return Result(
            layers, self.totals, int(self.valid.sum()), faults, self.timings,
            self.forwarded_again, self.disk_bytes, self.forward.step,
        )  # fmt: skip

    def _begin(self, number: int, index: int, part: Part) -> _Work:
        share = len(self.plan.passes[number])
        device = self.resources.device
        places = part.height * part.width
        if self.convention.values == "map":
            scan = levels = LayerScan(part.units, part.keep, self.method.exemplars, BLOCKS, places, device)
        else:
            scan = LayerScan(part.units, 1, self.method.exemplars, BLOCKS, places, device)
            levels = LayerScan(part.units, part.keep, 0, BLOCKS, part.places, device)
        store = CandidateStore(
            Gatherer(*self._node_size(part), device),
            self.plan.candidate_bytes // share,
            self.resources.disk // share,
            self.resources.folder / f"{number}-{index}",
        )
        return _Work(part, scan, levels, store)

    def _node_size(self, part: Part) -> tuple[int, int]:
        ring = 2 if self.convention.pads else 0
        return part.height + ring, part.width + ring

    # The pass over the images: tails, extremes, exemplars and candidates.

    def _measure(self, number: int, work: list[_Work]) -> None:
        done = self._resume(number, work)
        saved = time.monotonic()
        pause = self.resources.checkpoint_seconds
        progress = Progress("forward", len(self.data), done)
        for batch in self._stream(done, len(self.data), images=True, labels=True):
            self._note_faults(batch)
            for i, labels in enumerate(_labels(batch)):
                if labels is not None:
                    self.cache.put(batch.first + i, labels)
            with self.timings.phase("forward_s"):
                maps = self.forward(_images(batch))
            with self.timings.phase("threshold_s"):
                valid = torch.from_numpy(batch.valid).to(self.resources.device)
                for item in work:
                    self._measure_part(item, maps[item.part.layer], valid, batch.first)
            count = len(batch.valid)
            progress.advance(count)
            last = batch.first + count
            if time.monotonic() - saved > pause and last < len(self.data):
                start = time.monotonic()
                self._try_to_save(number, work, last)
                saved = time.monotonic()
                pause = self.resources.checkpoint_seconds and max(
                    self.resources.checkpoint_seconds,
                    20 * (saved - start),  # saving costs at most one part in twenty
                )
        progress.close()

    def _measure_part(self, item: _Work, maps: torch.Tensor, valid: torch.Tensor, first_image: int) -> None:
        part = item.part
        values = maps[..., part.first : part.last].contiguous()
        block = first_image // self.block
        peak = item.scan.update(values.flatten(1, 2), valid, first_image, block)
        if item.levels is not item.scan:
            for i in range(len(values)):  # one image at a time: maps of label size are large
                item.levels.update(self._upsampled(item, values[i : i + 1]), valid[i : i + 1], first_image + i, block)
        bound = item.levels.bound
        item.store.put(first_image // self.method.batch_size, self._gather(item, values, peak, bound), bound)

    def _upsampled(self, item: _Work, values: torch.Tensor) -> torch.Tensor:
        """maps [1, h, w, U] -> [1, H * W, U] under the convention's anchoring and border."""
        part = item.part
        rows, columns = self.convention.axes((part.height, part.width), self.data.label_size)
        nodes = conventions.pad_ring(values) if self.convention.pads else values
        tables = (rows.node, rows.t, columns.node, columns.t)
        dense = reference.upsample(nodes.permute(0, 3, 1, 2), *(table.to(nodes.device) for table in tables))
        return dense.flatten(2).transpose(1, 2).contiguous()

    def _gather(self, item: _Work, values: torch.Tensor, peak: torch.Tensor, bound: torch.Tensor) -> Chunk:
        if self.convention.pads:
            values = conventions.pad_ring(values)
        return item.store.gatherer.gather(values.flatten(1, 2), peak, bound)

    # The counting pass: labels against candidates, no forward pass but for what was dropped.

    def _count(self, work: list[_Work]) -> list[LayerResult]:
        used = int(self.valid.sum())
        found = [
            thresholds.select(item.levels, self.convention, self.method.quantile, used * item.part.places)
            for item in work
        ]
        packer = LabelPacker(self.primary.numpy(), self.data.label_size, self.convention.unite)
        device = self.resources.device
        primary = self.primary.to(device)
        levels = [at.threshold.to(device) for at in found]
        counts, maps, axes = [], [], []
        for item, at in zip(work, found):
            counts.append(OverlapCounts(item.part.units, len(self.primary), len(self.data.categories), device))
            size = self._node_size(item.part)
            maps.append(ExemplarMaps(item.scan, at.threshold, size, self.method.batch_size))
            rows, columns = self.convention.axes((item.part.height, item.part.width), self.data.label_size)
            axes.append((rows.to(device), columns.to(device)))
        dropped = self._forward_again(sorted(set().union(*(item.store.dropped for item in work))))
        progress = Progress("count", len(self.data))
        for batch, labels in self._label_batches():
            packed = packer.pack(labels).to(device)
            fresh = next(dropped) if any(batch in item.store.dropped for item in work) else {}
            with self.timings.phase("overlap_s"):
                for i, item in enumerate(work):
                    kept = item.store.get(batch)
                    if kept is not None:
                        chunk = item.store.gatherer.prune(kept, levels[i])
                    else:
                        values = fresh[item.part.layer][..., item.part.first : item.part.last].contiguous()
                        chunk = self._gather(item, values, self._peaks(values, batch), levels[i])
                    counts[i].update(
                        chunk, packed, self._node_size(item.part), axes[i], levels[i], primary, self.convention.area
                    )
                    maps[i].update(batch, chunk)
                    item.store.release(batch)
            progress.advance(len(labels))
        progress.close()
        if self.totals is None:
            self.totals = packer.totals
            self.totals.area[0] = self.totals.images[0] = 0
        ring = 1 if self.convention.pads else 0
        return [
            self._finish(item, at, count, collected.result(ring))
            for item, at, count, collected in zip(work, found, counts, maps)
        ]

    def _peaks(self, values: torch.Tensor, batch: int) -> torch.Tensor:
        """Largest finite value of each map, -inf for excluded images: what the scan found in the first pass."""
        peak = torch.where(values.isfinite(), values, -torch.inf).amax((1, 2))
        first = batch * self.method.batch_size
        peak[torch.from_numpy(~self.valid[first : first + len(peak)]).to(peak.device)] = -torch.inf
        return peak

    def _forward_again(self, batches: Sequence[int]) -> Iterator[dict[str, torch.Tensor]]:
        """Maps of the given batches, ascending: the original batches once more, so the original bits."""
        size, total = self.method.batch_size, len(self.data)
        for first, last in _ranges(batches):
            for batch in self._stream(first * size, min(total, (last + 1) * size), images=True, labels=False):
                self.forwarded_again += len(batch.valid)
                images = _images(batch)
                images[~self.valid[batch.first : batch.first + len(images)]] = 0
                with self.timings.phase("forward_s"):
                    maps = self.forward(images)
                yield maps

    def _label_batches(self) -> Iterator[tuple[int, list["broden.ImageLabels | None"]]]:
        """Labels of every batch in order, from the cache or decoded again; None for excluded images."""
        size, total = self.method.batch_size, len(self.data)
        again: list[int] = []
        for batch in range(-(-total // size)):
            span = range(batch * size, min(total, (batch + 1) * size))
            if any(self.valid[p] and self.cache.get(p) is None for p in span):
                again.append(batch)
        decoded = (
            item
            for first, last in _ranges(again)
            for item in self._stream(first * size, min(total, (last + 1) * size), images=False, labels=True)
        )
        missing = set(again)
        for batch in range(-(-total // size)):
            span = range(batch * size, min(total, (batch + 1) * size))
            if batch not in missing:
                yield batch, [self.cache.get(p) if self.valid[p] else None for p in span]
                continue
            fresh = next(decoded)
            for fault in fresh.faults:
                if self.valid[fault.position]:
                    raise DissectError(f"{fault.file} could be read before and cannot be read now: {fault.reason}")
            yield batch, [labels if self.valid[p] else None for p, labels in zip(span, _labels(fresh))]

    def _stream(self, start: int, stop: int, images: bool, labels: bool) -> Iterator["broden.Batch"]:
        """`broden.stream` over a range, with the time that the loop waits for it."""
        batches = iter(
            broden.stream(
                self.data, self.method.batch_size, start=start, stop=stop, images=images, labels=labels,
                size=self.method.input_size, workers=self.resources.workers,
            )
        )  # fmt: skip
        while True:
            with self.timings.phase("decode_s"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _note_faults(self, batch: "broden.Batch") -> None:
        self.valid[batch.first : batch.first + len(batch.valid)] = batch.valid
        for fault in batch.faults:
            self.faults[fault.position] = fault

    def _finish(
        self, item: _Work, at: thresholds.Thresholds, counts: OverlapCounts, exemplars: Exemplars
    ) -> LayerResult:
        scan, part = item.scan, item.part
        nonfinite = scan.nonfinite.cpu()
        counts.clear(nonfinite > 0)
        counts.intersection[:, 0] = 0
        moments = scan.moments.cpu().numpy()
        total = np.zeros(moments.shape[1:])
        for block in moments:
            total += block
        values = int(self.valid.sum()) * part.height * part.width
        count = np.maximum(values - nonfinite.numpy(), 1)
        mean = total[:, 0] / count
        spread = np.sqrt(np.maximum(total[:, 1] / count - mean * mean, 0))
        return LayerResult(
            part.layer, (part.height, part.width), at.n, at.k, at.threshold.numpy(), scan.low.cpu().numpy(),
            scan.high.cpu().numpy(), mean, spread, nonfinite.numpy(), counts.intersection.cpu().numpy(),
            counts.area.cpu().numpy(), counts.mask.cpu().numpy(), exemplars,
        )  # fmt: skip

    # Resume: the state of the pass over the images.

    @property
    def _state_file(self) -> Path:
        return self.resources.folder / "state.npz"

    def _try_to_save(self, number: int, work: list[_Work], done: int) -> None:
        """A state that cannot be saved costs a killed run its progress, not this run its result."""
        try:
            self._save(number, work, done)
        except SpaceError as error:
            self.announce(f"{error}; going on without: a killed run would begin again")

    def _save(self, number: int, work: list[_Work], done: int) -> None:
        arrays = {"valid": self.valid}
        indices = []
        for i, item in enumerate(work):
            item.store.persist()
            indices.append(item.store.index())
            for kind, scan in _scans(item):
                arrays |= {f"{i}/{kind}/{name}": value for name, value in scan.state().items()}
        faults = [list(fault) for fault in self.faults.values()]
        checkpoint.save(
            self._state_file,
            checkpoint.State({"pass": number, "done": done, "stores": indices, "faults": faults}, arrays),
        )

    def _resume(self, number: int, work: list[_Work]) -> int:
        """Take up the saved state; returns the position of the first image still to be done."""
        state = checkpoint.load(self._state_file)
        if state is None or state.meta["pass"] != number:
            for item in work:
                shutil.rmtree(item.store.folder, ignore_errors=True)
            return 0
        done = int(state.meta["done"])  # type: ignore[call-overload]
        self.valid = state.arrays["valid"]
        self.faults = {fault[0]: broden.Fault(*fault) for fault in state.meta["faults"]}  # type: ignore[attr-defined]
        for i, item in enumerate(work):
            for kind, scan in _scans(item):
                scan.restore({name: state.arrays[f"{i}/{kind}/{name}"] for name in LayerScan.NAMES})
            item.store.restore(state.meta["stores"][i], -(-done // self.method.batch_size))  # type: ignore[index]
        return done


def _scans(item: _Work) -> list[tuple[str, LayerScan]]:
    """The scans of a part that a checkpoint holds."""
    return [("maps", item.scan)] + ([("levels", item.levels)] if item.levels is not item.scan else [])


def _images(batch: broden.Batch) -> np.ndarray:
    assert batch.images is not None, "the stream was asked for images"
    return batch.images


def _labels(batch: broden.Batch) -> Sequence[broden.ImageLabels | None]:
    assert batch.labels is not None, "the stream was asked for labels"
    return batch.labels


def _ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as ranges of consecutive ones, (first, last)."""
    start = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            yield numbers[start], numbers[i - 1]
            start = i


def _join(pieces: list[LayerResult]) -> LayerResult:
    """One result from ranges of units of one layer."""
    if len(pieces) == 1:
        return pieces[0]

    def stack(parts: Sequence[object], name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    tops = [piece.exemplars for piece in pieces]
    per_unit = ("threshold", "low", "high", "mean", "std", "nonfinite", "intersection", "area", "mask")
    arrays: dict[str, Any] = {name: stack(pieces, name) for name in per_unit}
    exemplars = Exemplars(*(stack(tops, name) for name in ("value", "image", "place", "maps")))
    return replace(pieces[0], exemplars=exemplars, **arrays)
