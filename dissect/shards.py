"""One run in shards without any engine: array jobs on a shared folder each measure one, and `merge` finishes.

    <cache>/<run id>/shards/request.json                      what was asked for, the same for every shard
    <cache>/<run id>/shards/03-of-08-<sha256>.partial         what shard 3 of 8 left, named by its content
    <cache>/<run id>/shards/03-of-08.took.json                seconds by phase and memory that it took

Shards never open the database, which may lie on a file system that many machines share; `merge` alone writes it.
"""

import atexit
import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dissect import pipeline
from dissect.errors import DissectError, SpaceError, SpecError
from dissect.outcome import Outcome
from dissect.preparing import Prepared, prepare
from dissect.process import peak_rss
from dissect.recording import record
from dissect.request import RunRequest
from dissect.running import lock, report
from dissect.store import Store
from dissect.workspace import Workspace

Announce = Callable[[str], None]
Took = dict[str, float]
_NAME = re.compile(r"(\d+)-of-(\d+)-([0-9a-f]{64})\.partial")


def run_shard(workspace: Workspace, request: RunRequest, shard: tuple[int, int], announce: Announce) -> Path:
    """Measure one shard of the run that a request describes, unless that has been done; the file it left.

    Raises SpecError, UnsafeError, SpaceError, RetryLater (another process measures this shard).
    """
    prepared = prepare(workspace, request, announce)
    keep_request(workspace, prepared)
    found = partials(workspace, prepared.run_id, shard[1]).get(shard[0])
    if found is not None:
        return found
    with lock(workspace, prepared.run_id, f"shard {shard[0]}/{shard[1]}"):
        return _measure(workspace, prepared, shard, False, announce)


def keep_request(workspace: Workspace, prepared: Prepared) -> dict[str, Any]:
    """Put what was asked for where every shard finds it; its plain values."""
    folder = _folder(workspace, prepared.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    values = _plain(prepared.request)
    _put(folder / "request.json", json.dumps(values, indent=1).encode())
    return values


def prepared_again(workspace: Workspace, run_id: str, announce: Announce) -> Prepared:
    """The run whose request was kept. Raises SpecError where it would be another run by now."""
    prepared = prepare(workspace, _request(workspace, run_id), announce)
    if prepared.run_id != run_id:
        raise SpecError(f"the shards of run {run_id} were measured with another release or other files: measure again")
    return prepared


def measure_shard(
    workspace: Workspace, run_id: str, shard: tuple[int, int], bad: Mapping[int, str], announce: Announce
) -> Path:
    """Measure a shard of a run whose request was kept, without the images that are `bad`; the file it left."""
    return _measure(workspace, prepared_again(workspace, run_id, announce), shard, False, announce, bad)


def measure_elsewhere(values: Mapping[str, Any], run_id: str, shard: tuple[int, int]) -> tuple[bytes, Took]:
    """The partial of a shard, and what it took, where the workspace is not at hand, only the files that the request
    (the plain `values` that `keep_request` gave) names. Raises SpecError where it would be another run here."""
    workspace, prepared = _prepared_elsewhere(json.dumps(values, sort_keys=True))
    if prepared.run_id != run_id:
        raise SpecError(f"{socket.gethostname()} has another release or other files than run {run_id} was begun with")
    return _measured(workspace, prepared, shard, False, _silent)


@functools.lru_cache(1)
def _prepared_elsewhere(values: str) -> tuple[Workspace, Prepared]:
    """A folder of its own, which goes with the process, and the request in it."""
    folder = tempfile.mkdtemp(prefix="dissect-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    workspace = Workspace.at(folder)
    return workspace, prepare(workspace, _revived(json.loads(values)), _silent)


def _silent(line: str) -> None:
    """Says nothing."""


def keep(workspace: Workspace, run_id: str, shard: tuple[int, int], data: bytes, facts: Took) -> Path:
    """Put the partial of a shard and what it took where `merge` looks for them; the partial's file. Raises
    SpaceError."""
    folder = _folder(workspace, run_id)
    _put(folder / _took(shard), json.dumps(facts).encode())
    return _put(folder / f"{_number(shard)}-{hashlib.sha256(data).hexdigest()}.partial", data)


def begun(workspace: Workspace, run_id: str) -> int | None:
    """In how many shards the run was begun here: where in several ways, the one of which most are there."""
    names = [_NAME.fullmatch(path.name) for path in _folder(workspace, run_id).glob("*.partial")]
    counts = {int(match[2]) for match in names if match}
    return max(counts, key=lambda count: len(partials(workspace, run_id, count)) / count, default=None)


def merge(workspace: Workspace, run_id: str, announce: Announce, bad: Mapping[int, str] | None = None) -> Outcome:
    """Finish a run from its shards. One that has let too much go is measured again here, without the images that are
    `bad`.

    Raises SpecError where the run has no shards here or some are missing, and as `run_dissection` does.
    """
    start = time.perf_counter()
    prepared = prepared_again(workspace, run_id, announce)
    with Store.open(workspace) as store, lock(workspace, run_id):
        run = store.begin_run(prepared.row())
        fresh = run.state != "finished"  # a finished one may have lost its shards, and its pages may be missing
        if fresh:
            try:
                result = _finish(workspace, prepared, _complete(workspace, run_id), announce, bad)
                run = record(store, prepared, result, start)
            except DissectError as error:
                store.fail_run(run_id, str(error))
                raise
        outcome = report(store, run, prepared.request, fresh, start, announce)
        for path in _folder(workspace, run_id).glob("*.partial"):
            path.unlink(missing_ok=True)
        return outcome


def waiting(workspace: Workspace) -> list[str]:
    """Ids of the runs that have shards here."""
    return sorted(path.parent.parent.name for path in workspace.root.glob("cache/*/shards/request.json"))


def partials(workspace: Workspace, run_id: str, count: int) -> dict[int, Path]:
    """The shards that are there, of `count`, by number; a file whose content is not what its name says is none."""
    found = {}
    for path in sorted(_folder(workspace, run_id).glob("*.partial")):
        match = _NAME.fullmatch(path.name)
        if match and int(match[2]) == count and _sha256(path) == match[3]:
            found[int(match[1])] = path
    return found


def _measure(
    workspace: Workspace, prepared: Prepared, shard: tuple[int, int], whole: bool, announce: Announce,
    bad: Mapping[int, str] | None = None,
) -> Path:  # fmt: skip
    return keep(workspace, prepared.run_id, shard, *_measured(workspace, prepared, shard, whole, announce, bad))


def _measured(
    workspace: Workspace, prepared: Prepared, shard: tuple[int, int], whole: bool, announce: Announce,
    bad: Mapping[int, str] | None = None,
) -> tuple[bytes, Took]:  # fmt: skip
    timings, start = pipeline.Timings(), time.perf_counter()
    data = pipeline.measure(
        prepared.model.module, prepared.data, prepared.method,
        prepared.resources(workspace, f"-{shard[0]}-of-{shard[1]}"), shard, bad, whole, announce,
        thresholds=prepared.thresholds, timings=timings,
    )  # fmt: skip
    facts = vars(timings) | {"shard_s": time.perf_counter() - start, "peak_rss_bytes": peak_rss(), "bytes": len(data)}
    return data, facts


def _finish(
    workspace: Workspace, prepared: Prepared, found: dict[int, Path], announce: Announce,
    bad: Mapping[int, str] | None,
) -> pipeline.Result:  # fmt: skip
    def finish(paths: dict[int, Path]) -> pipeline.Result:
        return pipeline.finish(
            prepared.model.module, prepared.data, prepared.method, prepared.resources(workspace), list(paths.values()),
            announce, thresholds=prepared.thresholds,
        )  # fmt: skip

    try:
        return _with_times(workspace, prepared.run_id, finish(found), found)
    except pipeline.Loose as loose:
        announce(f"{loose}: doing so here")
        again = {i: _measure(workspace, prepared, (i, len(found)), True, announce, bad) for i in loose.shards}
        result = finish(found | again)
        for path in again.values():
            path.unlink(missing_ok=True)
        return _with_times(workspace, prepared.run_id, result, found)


def took(workspace: Workspace, run_id: str, shard: tuple[int, int]) -> Took:
    """What shard (i, n) took where it was measured: seconds by phase and as a whole, bytes of memory and of its
    partial. Empty where that is not known."""
    try:
        found: Took = json.loads((_folder(workspace, run_id) / _took(shard)).read_text())
    except (OSError, ValueError):
        return {}
    return found


def _with_times(
    workspace: Workspace, run_id: str, result: pipeline.Result, found: Mapping[int, Path]
) -> pipeline.Result:  # fmt: skip
    """The result with the time of its shards in that of each phase."""
    total = vars(result.timings).copy()
    for number in found:
        facts = took(workspace, run_id, (number, len(found)))
        total = {name: seconds + facts.get(name, 0.0) for name, seconds in total.items()}
    return dataclasses.replace(result, timings=pipeline.Timings(**total))


def _number(shard: tuple[int, int]) -> str:
    return f"{shard[0]:02d}-of-{shard[1]:02d}"


def _took(shard: tuple[int, int]) -> str:
    return f"{_number(shard)}.took.json"


def _complete(workspace: Workspace, run_id: str) -> dict[int, Path]:
    """All shards of a run. Raises SpecError naming those that are missing."""
    names = [_NAME.fullmatch(path.name) for path in _folder(workspace, run_id).glob("*.partial")]
    counts = {int(match[2]) for match in names if match}
    best: tuple[int, list[int]] | None = None
    for count in sorted(counts):
        found = partials(workspace, run_id, count)
        absent = sorted(set(range(count)) - found.keys())
        if not absent:
            return found
        if best is None or len(absent) < len(best[1]):
            best = count, absent
    if best is None:
        raise SpecError(f"run {run_id} has no shards in this workspace: measure them with `dissect run … --shard i/n`")
    count, absent = best
    named = ", ".join(f"{i}/{count}" for i in absent[:20])
    raise SpecError(f"run {run_id} lacks {len(absent)} of {count} shards: {named}; measure them, then merge again")


def _folder(workspace: Workspace, run_id: str) -> Path:
    return workspace.cache_folder(run_id) / "shards"


def _request(workspace: Workspace, run_id: str) -> RunRequest:
    try:
        return _revived(json.loads((_folder(workspace, run_id) / "request.json").read_text()))
    except FileNotFoundError:
        known = ", ".join(waiting(workspace)) or "none"
        raise SpecError(f"no shards of run {run_id} in this workspace; runs with shards: {known}") from None


def _revived(values: dict[str, Any]) -> RunRequest:
    """The inverse of `_plain`."""
    for name in ("layers", "mean", "std"):
        values[name] = tuple(values[name]) if values[name] is not None else None
    for name in ("cache_dir", "thresholds"):
        values[name] = Path(values[name]) if values[name] is not None else None
    return RunRequest(**values)


def _plain(request: RunRequest) -> dict[str, Any]:
    values = dataclasses.asdict(request)
    for name in ("cache_dir", "thresholds"):
        values[name] = str(values[name].absolute()) if values[name] is not None else None
    if values["basis"] and Path(values["basis"]).is_file():
        values["basis"] = str(Path(values["basis"]).absolute())
    for name in ("data", "weights"):
        values[name] = str(Path(values[name]).absolute()) if values[name] is not None else None
    return values


def _put(path: Path, data: bytes) -> Path:
    """Write a file aside, sync it, rename it into place. Raises SpaceError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)  # the name must last as long as the content
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise SpaceError(f"cannot write {path}: {error.strerror}") from error
    return path


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
