"""Network dissection on one page.

    images -> activations -> tails and candidates      (one forward pass over all images)       measuring
                          -> thresholds                (exact, by selection)                    thresholds
    candidates + labels   -> overlap counts            (no forward pass, but for what did not fit)  counting
                          -> results per layer

Every stage is a mergeable accumulator over batches of a fixed grid; what is kept where never changes a count. One
process does it all in `dissect`; many do it in shards (`sharded`), each measured once and then finished, with the same
bits.
"""

import copy
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

import broden
from dissect import conventions
from dissect.checkpoint import Sink
from dissect.counting import count
from dissect.errors import SpecError
from dissect.estimate import Estimate, estimate
from dissect.finished import load_pass, save_pass
from dissect.forward import Forward
from dissect.heap import Heap
from dissect.labels import LabelCache, LabelTotals
from dissect.measuring import measure as measure_batches
from dissect.method import Method, Resources
from dissect.partial import Loose, Merge, measure_shard
from dissect.plan import make_plan
from dissect.results import LayerResult, Result, Timings, join
from dissect.setting import Setting
from dissect.shelf import Shelf
from dissect.work import Work

__all__ = [
    "Estimate", "LayerResult", "Loose", "Method", "Resources", "Result", "Sharded", "Timings", "dissect", "foretell",
    "sharded",
]  # fmt: skip

Announce = Callable[[str], None]


def _silent(line: str) -> None:
    """Says nothing."""


def dissect(
    module: nn.Module,
    data: broden.Dataset,
    method: Method,
    resources: Resources,
    announce: Announce = _silent,
    own: bool = False,
    thresholds: Mapping[str, np.ndarray] | None = None,
) -> Result:
    """Dissect layers of a module on a concept set; goes on from a saved state in `resources.folder` if there is one.

    The module is left as it was found: the work is done on a copy, unless the caller says that it is `own` to
    convert to another device, dtype and memory layout. thresholds {layer: [U] float32} are used instead of those that
    would be found. Raises SpecError (layer, data), SpaceError (memory, disk).
    """
    with _setting(module, data, method, resources, announce, own, thresholds) as setting:
        announce(estimate(setting).sentence())

        def work(number: int) -> list[Work]:
            parts = setting.plan.passes[number]
            begun = [Work.begin(setting, number, i, part) for i, part in enumerate(parts)]
            measure_batches(setting, number, begun, setting.batches)
            return begun

        return _result(setting, work)


def foretell(module: nn.Module, data: broden.Dataset, method: Method, resources: Resources) -> Estimate:
    """What `dissect` would take, from the first batch. Raises as `dissect` does before its work."""
    with _setting(module, data, method, resources, _silent, False, None) as setting:
        return estimate(setting)


class Sharded:
    """A run in shards. What was set up and decoded for one shard serves the next, and the end."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def measure(
        self,
        shard: tuple[int, int],
        file: Sink,
        bad: Mapping[int, str] | None = None,
        whole: bool = False,
        timings: Timings | None = None,
    ) -> None:
        """Write the partial of shard (i, n), 0 <= i < n <= 64: the same bytes wherever and whenever it is measured.

        bad {position: reason}: images to set aside; they keep their slot. whole: keep all that the whole run could
        need (see `finish`). timings: where the time that it took is noted. Raises as `dissect` does.
        """
        data, folder = self._setting.data, self._setting.resources.folder
        own = folder.with_name(f"{folder.name}-{shard[0]}-of-{shard[1]}")
        setting = replace(
            self._setting,
            resources=replace(self._setting.resources, folder=own),
            faults={p: broden.Fault(p, data.rows[p].image, reason) for p, reason in (bad or {}).items()},
            timings=timings or Timings(),
        )
        measure_shard(setting, shard, whole, file)
        shutil.rmtree(own, ignore_errors=True)

    def finish(self, partials: Sequence[Path]) -> Result:
        """The result of the run from the partials of all its shards, equal to that of `dissect`, bit for bit.

        Raises Loose, naming the shards, where one has let values go that the thresholds need: measure those again with
        whole=True. Raises SpecError where partials are missing, damaged, or of another run.
        """
        setting = replace(self._setting, faults={}, timings=Timings())
        return _result(setting, Merge(setting, partials).work)


@contextmanager
def sharded(
    module: nn.Module,
    data: broden.Dataset,
    method: Method,
    resources: Resources,
    announce: Announce = _silent,
    own: bool = False,
    thresholds: Mapping[str, np.ndarray] | None = None,
) -> Iterator[Sharded]:
    """A run in shards, for as long as the block lasts; arguments and errors as of `dissect`."""
    with _setting(module, data, method, resources, announce, own, thresholds) as setting:
        yield Sharded(setting)


@contextmanager
def _setting(
    module: nn.Module,
    data: broden.Dataset,
    method: Method,
    resources: Resources,
    announce: Announce,
    own: bool,
    thresholds: Mapping[str, np.ndarray] | None,
) -> Iterator[Setting]:
    if not len(data):
        raise SpecError(f"data set {data.name!r} has no images to use")
    module = module if own else copy.deepcopy(module)
    size = (method.input_size, method.input_size) if method.input_size else data.image_size
    with Forward(
        module,
        method.layers,
        method.mean,
        method.std,
        resources.device,
        method.dtype,
        method.compiled,
        method.basis,
    ) as forward:
        shapes = forward.shapes(size)
        plan = make_plan(
            shapes, data.label_size, len(data), (len(data.labels), len(data.categories)),
            conventions.get(method.convention), method.quantile, method.exemplars, method.batch_size, resources.memory,
        )  # fmt: skip
        announce(plan.sentence())
        given = {layer: torch.from_numpy(values) for layer, values in (thresholds or {}).items()}
        for layer, values in given.items():
            units = shapes[layer][2]
            if len(values) != units:
                raise SpecError(f"{len(values)} thresholds are given for layer {layer!r}, which has {units} units")
        cache, heap = LabelCache(plan.label_bytes), Heap(resources.memory // 2)
        yield Setting(data, method, resources, forward, plan, announce, given, cache, heap)


def _result(setting: Setting, work: Callable[[int], list[Work]]) -> Result:
    """Count the work of every pass, and put the parts of each layer together."""
    pieces: list[LayerResult] = []
    totals: LabelTotals | None = None
    passes = len(setting.plan.passes)
    shelf = Shelf(setting.resources.folder, len(setting.primary))
    for number in range(passes):
        done = load_pass(setting, shelf, number) if passes > 1 else None
        if done is None:
            items = work(number)
            done = count(setting, items)
            setting.disk_bytes = max(setting.disk_bytes, sum(item.store.peak_disk_bytes for item in items))
            setting.spilled_bytes = max(setting.spilled_bytes, sum(item.store.spilled_bytes for item in items))
            del items
            if passes > 1:
                done = save_pass(setting, shelf, number, *done), done[1]
                setting.heap.give_back()
        pieces += done[0]
        totals = done[1]
    assert totals is not None
    layers = {
        layer: join([piece for piece in pieces if piece.layer == layer], partial(shelf.whole, i))
        for i, layer in enumerate(setting.method.layers)
    }
    shutil.rmtree(setting.resources.folder, ignore_errors=True)
    return Result(
        layers,
        totals,
        int(setting.valid.sum()),
        tuple(setting.faults[position] for position in sorted(setting.faults)),
        setting.timings,
        setting.forwarded_again,
        setting.disk_bytes,
        setting.spilled_bytes,
        setting.forward.step,
        setting.plan.every,
    )
