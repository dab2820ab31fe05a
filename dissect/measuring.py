"""The pass over the images: tails, extremes, moments, exemplars and candidates. Saved on the way, taken up again."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import broden
from dissect import checkpoint
from dissect.errors import SpaceError
from dissect.progress import Progress
from dissect.setting import Setting
from dissect.work import Work


def measure(setting: Setting, number: int, work: list[Work], batches: Sequence[int]) -> None:
    """Measure the given batches for pass `number`, from where a saved state ends."""
    done = _resume(setting, number, work, batches)
    saved = time.monotonic()
    pause = setting.resources.checkpoint_seconds
    sizes = [len(setting.span(batch)) for batch in batches]
    progress = Progress("forward", sum(sizes), sum(sizes[:done]))
    for batch, maps in setting.measured(batches[done:]):
        with setting.timings.phase("threshold_s"):
            valid = setting.valid_in(batch).to(setting.resources.device)
            for item in work:
                item.measure(batch, maps, valid)
        progress.advance(sizes[done])
        setting.heap.trim()
        done += 1
        if time.monotonic() - saved > pause and done < len(batches):
            start = time.monotonic()
            _try_to_save(setting, number, work, batches, done)
            saved = time.monotonic()
            # Saving costs at most one part in twenty.
            pause = setting.resources.checkpoint_seconds and max(pause, 20 * (saved - start))
    for item in work:
        item.settle()
    progress.close()


def _state_file(setting: Setting) -> Path:
    return setting.resources.folder / "state.npz"


def _identity(setting: Setting, number: int, work: list[Work]) -> dict[str, Any]:
    """What a saved state must have been made for."""
    return {"pass": number, "keeps": [item.levels.keep for item in work]} | setting.plan.cut


def _try_to_save(setting: Setting, number: int, work: list[Work], batches: Sequence[int], done: int) -> None:
    """A state that cannot be saved costs a killed run its progress, not this run its result."""
    try:
        _save(setting, number, work, batches, done)
    except SpaceError as error:
        setting.announce(f"{error}; going on without: a killed run would begin again")


def _save(setting: Setting, number: int, work: list[Work], batches: Sequence[int], done: int) -> None:
    arrays: dict[str, np.ndarray] = {}
    indices = []
    for i, item in enumerate(work):
        item.settle()
        item.store.prune(item.bound)
        item.store.persist()
        indices.append(item.store.index())
        for kind, scan in item.scans():
            arrays |= {f"{i}/{kind}/{name}": value for name, value in scan.state().items()}
        arrays[f"{i}/peaks"] = item.peaks.cut([setting.span(batch) for batch in batches[:done]])
    faults = [list(fault) for fault in setting.faults.values()]
    meta = _identity(setting, number, work) | {"done": done, "stores": indices, "faults": faults}
    checkpoint.save(_state_file(setting), checkpoint.State(meta, arrays))


def _resume(setting: Setting, number: int, work: list[Work], batches: Sequence[int]) -> int:
    """Take up the saved state; returns how many of the batches are done."""
    own = _identity(setting, number, work)
    with checkpoint.believed(_state_file(setting), lambda meta: own.items() <= meta.items()) as state:
        if state is None:
            for item in work:
                shutil.rmtree(item.store.folder, ignore_errors=True)
            return 0
        done = int(state.meta["done"])
        for fault in state.meta["faults"]:
            setting.set_aside(broden.Fault(*fault))
        for i, item in enumerate(work):
            for kind, scan in item.scans():
                scan.restore(state.arrays.under(f"{i}/{kind}/"))
            item.peaks.take(state.arrays[f"{i}/peaks"], [setting.span(batch) for batch in batches[:done]])
            item.store.restore(state.meta["stores"][i], batches[:done])
        return done
