"""One dissection from request to report: prepared, computed under a lock, recorded, published."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from dissect import models, pipeline
from dissect.errors import DissectError, RetryLater
from dissect.outcome import Outcome
from dissect.preparing import Prepared, prepare
from dissect.recording import record
from dissect.request import RunRequest
from dissect.store import RunRecord, Store, StoredLayer
from dissect.workspace import Workspace

__all__ = ["Outcome", "Prepared", "RunRequest", "list_layers", "prepare", "record", "report", "run_dissection"]


def list_layers(request: RunRequest) -> str:
    """A table of the model's layers: name, kind, shape, calls."""
    model = models.load(request.model, request.weights, request.trust, seed=request.seed)
    side = request.input_size or 224
    rows = [
        (info.name, info.kind, " x ".join(map(str, info.shape)), str(info.calls))
        for info in models.layers(model, (side, side))
    ]
    rows.insert(0, ("layer", "kind", "shape", "calls"))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*(cell.ljust(w) for cell, w in zip(row, widths)), row[3]]) for row in rows)


def run_dissection(
    workspace: Workspace, request: RunRequest, announce: Callable[[str], None] = lambda line: None
) -> Outcome:
    """Dissect as asked, or return the finished run of the same specification, or go on with an interrupted one.

    Raises SpecError, UnsafeError, SpaceError, RetryLater (another process is at it), DissectError.
    """
    start = time.perf_counter()
    prepared = prepare(workspace, request, announce)
    with Store.open(workspace) as store, lock(workspace, prepared.run_id):
        run = store.begin_run(prepared.row())
        fresh = run.state != "finished"
        if fresh:
            try:
                result = pipeline.dissect(
                    prepared.model.module, prepared.data, prepared.method, prepared.resources(workspace), announce,
                    own=True, thresholds=prepared.thresholds,
                )  # fmt: skip
                run = record(store, prepared, result, start)
            except DissectError as error:
                store.fail_run(prepared.run_id, str(error))
                raise
        return report(store, run, request, fresh, start, announce)


@contextmanager
def lock(workspace: Workspace, run_id: str, part: str = "") -> Iterator[None]:
    """One process works on a run, or on a named part of it; a killed one leaves no lock behind."""
    folder = workspace.cache_folder(run_id)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"lock{part.replace('/', '-of-').replace(' ', '-')}", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            named = f"{part} of run {run_id}" if part else f"run {run_id}"
            raise RetryLater(f"{named} is being worked on by another process: wait for it, then repeat") from None
        yield


def report(
    store: Store, run: RunRecord, request: RunRequest, fresh: bool, start: float, announce: Callable[[str], None]
) -> Outcome:
    """Write the pages of a finished run, if they are asked for. fresh: whether this process has computed it."""
    index: str | None = None
    notes: tuple[str, ...] = ()
    if request.report:
        from dissect.publish import publish_run, publish_workspace

        announce("writing the report")
        begun = time.perf_counter()
        written = publish_run(store, run.id, None, request.data)
        publish_workspace(store)
        index, notes = str(written.index), tuple(written.notes)
        timings = dict(run.timings) | {"report_s": time.perf_counter() - begun}
        if fresh:
            timings["wall_s"] = time.perf_counter() - start
        run = replace(run, timings=timings)
    facts = {layer.name: _counts(store, layer) for layer in store.layers(run.id)}
    where = store.workspace.database
    return Outcome(run, facts, str(where) if where else store.where, index, fresh, notes)


def _counts(store: Store, layer: StoredLayer) -> dict[str, int]:
    """What is said of a layer at the end; detectors_q05 (those at q < 0.05) only where the run has q-values."""
    found = {name: getattr(layer, name) for name in ("units", "detectors", "unique_detectors", "unique_concepts")}
    units = store.units(layer)
    if units.q_value is not None and not np.isnan(units.q_value).all():
        found["detectors_q05"] = int(((units.iou > layer.cut) & (units.label > 0) & (units.q_value < 0.05)).sum())
    return found
