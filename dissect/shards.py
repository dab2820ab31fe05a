"""One run in shards: each is measured by whoever takes it, and `merge` finishes. No engine is needed.

Shards never open the database, which may lie on a file system that many machines share; `merge` alone writes it.
"""

import functools
import io
import json
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from dissect import pipeline
from dissect.checkpoint import Sink
from dissect.errors import DissectError, SpecError
from dissect.outcome import Outcome
from dissect.preparing import Prepared, prepare
from dissect.process import peak_rss
from dissect.recording import record
from dissect.request import RunRequest
from dissect.running import lock, report
from dissect.shard_files import Shard, ShardFiles, Took, revived
from dissect.store import Store
from dissect.workspace import Workspace

Announce = Callable[[str], None]


class Shards:
    """The shards of one run in this process, for a with block: what was opened, loaded and decoded for one serves the
    next. `bad` {position: reason}: images that are set aside."""

    def __init__(self, workspace: Workspace, prepared: Prepared, announce: Announce) -> None:
        self.prepared, self.files = prepared, ShardFiles(workspace, prepared.run_id)
        self._workspace, self._announce = workspace, announce
        self._opened = ExitStack()

    def __enter__(self) -> "Shards":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @classmethod
    def again(cls, workspace: Workspace, run_id: str, announce: Announce) -> "Shards":
        """Of a run whose request was kept. Raises SpecError where it would be another run by now."""
        prepared = prepare(workspace, ShardFiles(workspace, run_id).request(), announce)
        if prepared.run_id != run_id:
            raise SpecError(
                f"the shards of run {run_id} were measured with another release or other files: measure again"
            )
        return cls(workspace, prepared, announce)

    @functools.cached_property
    def _work(self) -> pipeline.Sharded:
        prepared = self.prepared
        return self._opened.enter_context(
            pipeline.sharded(
                prepared.model.module, prepared.data, prepared.method, prepared.resources(self._workspace),
                self._announce, thresholds=prepared.thresholds,
            )
        )  # fmt: skip

    def measured(self, shard: Shard, file: Sink, bad: Mapping[int, str] | None = None, whole: bool = False) -> Took:
        """Write the partial of a shard; what it took. Raises SpecError, SpaceError."""
        timings, start = pipeline.Timings(), time.perf_counter()
        self._work.measure(shard, file, bad, whole, timings)
        return vars(timings) | {"shard_s": time.perf_counter() - start, "peak_rss_bytes": peak_rss()}

    def measure(self, shard: Shard, bad: Mapping[int, str] | None = None, whole: bool = False) -> Path:
        """Measure a shard; the file it left."""
        return self.files.keep(shard, lambda file: self.measured(shard, file, bad, whole))

    def merge(self, bad: Mapping[int, str] | None = None) -> Outcome:
        """Finish the run from its shards. One that has let too much go is measured again here.

        Raises SpecError where shards are missing, and as `run_dissection` does.
        """
        start, prepared = time.perf_counter(), self.prepared
        with Store.open(self._workspace) as store, lock(self._workspace, prepared.run_id):
            run = store.begin_run(prepared.row())
            fresh = run.state != "finished"  # a finished one may have lost its shards, and its pages may be missing
            if fresh:
                try:
                    run = record(store, prepared, self._finish(self.files.complete(), bad), start)
                except DissectError as error:
                    store.fail_run(prepared.run_id, str(error))
                    raise
            outcome = report(store, run, prepared.request, fresh, start, self._announce)
            self.files.forget()
            return outcome

    def _finish(self, found: dict[int, Path], bad: Mapping[int, str] | None) -> pipeline.Result:
        try:
            result = self._work.finish(list(found.values()))
        except pipeline.Loose as loose:
            self._announce(f"{loose}: doing so here")
            again = {i: self.measure((i, len(found)), bad, whole=True) for i in loose.shards}
            result = self._work.finish(list((found | again).values()))
            for path in again.values():
                path.unlink(missing_ok=True)
        total = vars(result.timings).copy()
        for number in found:
            facts = self.files.took((number, len(found)))
            total = {name: seconds + facts.get(name, 0.0) for name, seconds in total.items()}
        return replace(result, timings=pipeline.Timings(**total))


def run_shard(workspace: Workspace, request: RunRequest, shard: Shard, announce: Announce) -> Path:
    """Measure one shard of the run that a request describes, unless that has been done; the file it left.

    Raises SpecError, UnsafeError, SpaceError, RetryLater (another process measures this shard).
    """
    with Shards(workspace, prepare(workspace, request, announce), announce) as shards:
        shards.files.keep_request(request)
        found = shards.files.partials(shard[1]).get(shard[0])
        if found is not None:
            return found
        with lock(workspace, shards.files.run_id, f"shard {shard[0]}/{shard[1]}"):
            return shards.measure(shard)


def merge(workspace: Workspace, run_id: str, announce: Announce) -> Outcome:
    """See `Shards.merge`; raises SpecError where the run has no shards here, too."""
    with Shards.again(workspace, run_id, announce) as shards:
        return shards.merge()


def measure_elsewhere(values: Mapping[str, Any], run_id: str, shard: Shard) -> tuple[bytes, Took]:
    """The partial of a shard, and what it took, where the workspace is not at hand, only the files that the request
    (the plain `values` that were kept) names. Raises SpecError where it would be another run here."""
    shards, folder = _elsewhere(json.dumps(values, sort_keys=True))
    if shards.prepared.run_id != run_id:
        raise SpecError(f"{socket.gethostname()} has another release or other files than run {run_id} was begun with")
    partial = io.BytesIO()
    try:
        took = shards.measured(shard, partial)
        return partial.getvalue(), took
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@functools.lru_cache(1)
def _elsewhere(values: str) -> tuple[Shards, Path]:
    """The run, and a folder of its own for what is put aside meanwhile; engines end their processes without notice."""
    folder = Path(tempfile.mkdtemp(prefix="dissect-"))
    try:
        prepared = prepare(Workspace.at(folder), revived(json.loads(values)), _silent)
        return Shards(Workspace.at(folder), prepared, _silent), folder
    finally:
        shutil.rmtree(folder)


def _silent(line: str) -> None:
    """Says nothing."""
