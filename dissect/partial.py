"""What one shard of a run leaves behind, as bytes: statistics, tails and candidates of its images.

Shard i of n holds the blocks b with b % n = i, so shards are alike, whatever the order of the images. A shard keeps
its share of the largest values and a margin for chance. After merging, a threshold is exact if it does not lie below
the bound under which some shard let values go; where it does, that shard is `Loose` and is measured again as a whole.
"""

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import broden
from dissect import checkpoint, counting
from dissect.errors import DissectError, SpecError
from dissect.measuring import measure
from dissect.scan import BLOCKS, LayerScan
from dissect.setting import Setting
from dissect.work import Work

# A unit's largest values come in clusters: a shard holds more or fewer of them than its share by what a few batches
# hold. Over all units of three layers, and shards of 3 to 118 batches of real pictures, by at most 19 shares /
# sqrt(batches).
MARGIN = 20.0


class Loose(DissectError):
    """Shards that let too much go: they must be measured again as a whole."""

    def __init__(self, shards: Sequence[int]) -> None:
        self.shards = tuple(shards)
        super().__init__(f"shards {', '.join(map(str, shards))} must be measured again as a whole")


def blocks_of(shard: tuple[int, int]) -> list[int]:
    """Blocks of shard (i, n). Raises SpecError where there is no such shard."""
    i, n = shard
    if not 1 <= n <= BLOCKS or not 0 <= i < n:
        raise SpecError(f"shard {i}/{n} does not exist: expected i/n with 0 <= i < n <= {BLOCKS}")
    return list(range(i, BLOCKS, n))


def shard_keep(keep: int, share: float, batches: int) -> int:
    """How many of the `keep` largest values of all images a shard keeps that holds a `share` of them in so many
    batches."""
    return min(keep, math.ceil(keep * share * (1 + MARGIN / math.sqrt(batches)))) if batches else 1


def _batches_of(setting: Setting, shard: tuple[int, int]) -> list[int]:
    mine = set(blocks_of(shard))
    return [batch for batch in setting.batches if batch % BLOCKS in mine]


def measure_shard(setting: Setting, shard: tuple[int, int], whole: bool, file: checkpoint.Sink) -> None:
    """Measure one shard; its partial goes into a file."""
    blocks = blocks_of(shard)
    batches = _batches_of(setting, shard)
    images = sum(len(setting.span(batch)) for batch in batches)
    keeps: list[list[int]] = []
    meta = {"shard": list(shard), "run": fingerprint(setting), "keeps": keeps, "images": images}
    with checkpoint.writing(file, meta) as put:
        for number, parts in enumerate(setting.plan.passes):
            keep = [
                part.keep if whole else shard_keep(part.keep, images / len(setting.data), len(batches))
                for part in parts
            ]
            keeps.append(keep)
            work = [Work.begin(setting, number, i, part, keep[i]) for i, part in enumerate(parts)]
            measure(setting, number, work, batches)
            for i, item in enumerate(work):
                for kind, scan in item.scans():
                    for name, value in scan.cut(blocks).items():
                        put(f"{number}/{i}/{kind}/{name}", value)
                put(f"{number}/{i}/peaks", item.peaks.cut([setting.span(batch) for batch in batches]))
                for batch in batches:
                    data = item.store.take(batch, item.bound)
                    if data is not None:
                        put(f"{number}/{i}/chunk/{batch}", np.frombuffer(data, np.uint8))
        meta["faults"] = [list(setting.faults[position]) for position in sorted(setting.faults)]


def fingerprint(setting: Setting) -> dict[str, Any]:
    """What partials of one run share: data, method and plan, as plain JSON values."""
    method = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(setting.method).items()}
    method["basis"] = setting.method.basis.key if setting.method.basis else None
    return {"data": setting.data.fingerprint, "images": len(setting.data), "method": method} | setting.plan.cut


class Merge:
    """Puts partials together, pass by pass."""

    def __init__(self, setting: Setting, partials: Sequence[Path]) -> None:
        """Looks at every partial first: they must be the shards of this run, each once.

        Raises SpecError naming the file.
        """
        self.setting = setting
        self.partials: dict[int, Path] = {}
        self.count = 0
        for path in partials:
            self._admit(path)
        absent = sorted(set(range(self.count)) - set(self.partials))
        if absent or not self.count:
            raise SpecError(f"shards {', '.join(map(str, absent)) or 'of the run'} are missing: measure them first")

    def _admit(self, path: Path) -> None:
        with _partial(path) as state:
            i, n = state.meta["shard"]
            if state.meta["run"] != fingerprint(self.setting):
                raise SpecError(f"{path.name} is a shard of another run (other data, method or --memory)")
            if self.count not in (0, n) or i in self.partials:
                raise SpecError(f"{path.name} is shard {i}/{n}, which does not go with the others")
            self.count, self.partials[i] = n, path
            for fault in state.meta["faults"]:
                self.setting.set_aside(broden.Fault(*fault))

    def work(self, number: int) -> list[Work]:
        """The work of one pass, as if one process had measured all images. Raises Loose."""
        parts = self.setting.plan.passes[number]
        work = [Work.begin(self.setting, number, i, part) for i, part in enumerate(parts)]
        bounds: dict[int, list[Tensor]] = {}
        for shard, path in self.partials.items():
            with _partial(path) as state:
                bounds[shard] = [self._add(state, number, i, item) for i, item in enumerate(work)]
                self._adopt(state, path, number, work)
        loose = set()
        for i, item in enumerate(work):
            item.store.drop_others(self.setting.batches)
            if item.given is not None:
                continue
            lowest = counting.read_thresholds(self.setting, item).lowest
            sound = item.levels.nonfinite.cpu() == 0
            loose |= {shard for shard, bound in bounds.items() if (sound & (lowest < bound[i].cpu())).any()}
        if loose:
            raise Loose(sorted(loose))
        return work

    def _add(self, state: checkpoint.Opened, number: int, i: int, item: Work) -> Tensor:
        """Add one partial to one part; the bound [U] under which it let values go."""
        keep = state.meta["keeps"][number][i]
        shard = tuple(state.meta["shard"])
        blocks = blocks_of(shard)
        spans = [self.setting.span(batch) for batch in _batches_of(self.setting, shard)]
        item.peaks.take(state.arrays[f"{number}/{i}/peaks"], spans)
        bound = torch.empty(0)
        for kind, scan in item.scans():
            other = LayerScan(item.part.units, keep, len(scan.top_value[0]), BLOCKS, 0, len(scan.histogram))
            other.take(state.arrays.under(f"{number}/{i}/{kind}/"), blocks)
            scan.merge(other)
            bound = other.bound
        return bound

    @staticmethod
    def _adopt(state: checkpoint.Opened, path: Path, number: int, work: list[Work]) -> None:
        """Candidates stay where they are until they are counted."""
        names = [name for name in state.arrays if name.startswith(f"{number}/") and "/chunk/" in name]
        for name, offset, length in checkpoint.places(path, names):
            _, i, _, batch = name.split("/")
            work[int(i)].store.adopt(int(batch), path, offset, length)


@contextmanager
def _partial(path: Path) -> Iterator[checkpoint.Opened]:
    """A partial that is open for reading. Raises SpecError, naming the file, where it is damaged."""
    try:
        with checkpoint.opened(path) as state:
            yield state
    except DissectError:
        raise
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError, FileNotFoundError) as error:
        raise SpecError(f"{path.name} is not a whole partial result: {error}") from None
