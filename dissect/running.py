"""One dissection from request to report: identity, lock, pipeline, scores, store, pages."""

import fcntl
import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import broden
from dissect import conventions, models, ops, pipeline, scores
from dissect.errors import DissectError, RetryLater, SpecError
from dissect.progress import duration, size
from dissect.store import Store
from dissect.store.records import (
    CategoryRecord,
    ConceptRecord,
    ExcludedRecord,
    ExemplarTable,
    LayerRecord,
    RunRecord,
    UnitTable,
)
from dissect.workspace import Workspace


@dataclass(frozen=True)
class RunRequest:
    """What a user asked for; None means the default of the convention, the weights or the data."""

    model: str
    layers: tuple[str, ...]
    data: str | None = None
    weights: str | None = None
    trust: str | None = None
    name: str | None = None
    convention: str = "exact"
    quantile: float | None = None
    batch_size: int = 32
    device: str = "cpu"
    dtype: str = "float32"
    limit: int | None = None
    split: str | None = None
    input_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    seed: int = 0
    memory: int = 1280 << 20
    cache_dir: Path | None = None
    cache_bytes: int = 8 << 30
    checkpoint_seconds: float = 60.0
    report: bool = True

    def check(self) -> None:
        """Raises SpecError for values that no run can have."""
        if self.quantile is not None and not 0 < self.quantile < 1:
            raise SpecError(f"--quantile is {self.quantile:g}: expected a share between 0 and 1, such as 0.005")
        for name, value in (
            ("--batch-size", self.batch_size),
            ("--limit", self.limit),
            ("--input-size", self.input_size),
        ):
            if value is not None and value < 1:
                raise SpecError(f"{name} is {value}: expected at least 1")
        if self.std is not None and not all(s > 0 for s in self.std):
            raise SpecError(f"--std is {self.std}: expected three numbers above 0")
        repeated = {layer for layer in self.layers if self.layers.count(layer) > 1}
        if repeated:
            raise SpecError(f"layer {sorted(repeated)[0]!r} is asked for twice")


@dataclass(frozen=True)
class Outcome:
    """A finished run as the store has it, and what this process did for it."""

    run: RunRecord
    layers: Mapping[str, Mapping[str, int]]
    database: str
    report: str | None
    fresh: bool
    notes: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def excluded(self) -> int:
        return self.run.excluded_images

    def json(self) -> dict[str, Any]:
        """The object that `dissect run --json` ends with."""
        return {
            "run": self.run.id,
            "name": self.run.name,
            "database": self.database,
            "report": self.report,
            "convention": self.run.convention,
            "images": self.run.images,
            "excluded_images": self.run.excluded_images,
            "layers": {name: dict(facts) for name, facts in self.layers.items()},
            "timings": dict(self.run.timings),
            "peak_rss_bytes": self.run.peak_rss_bytes,
        }

    def summary(self) -> str:
        """The closing lines for people."""
        t = self.run.timings
        lines = [""]
        for name, facts in self.layers.items():
            lines.append(
                f"{name}: {facts['detectors']} of {facts['units']} units are detectors (IoU > "
                f"{conventions.get(self.run.convention).cut:g}), {facts['unique_detectors']} unique detectors, "
                f"{facts['unique_concepts']} unique concepts"
            )
        lines.append(f"images     {self.run.images:,}" + (f", {self.excluded} excluded" if self.excluded else ""))
        if t:
            phases = ("forward", "decode", "threshold", "overlap", "report")
            parts = ", ".join(f"{name} {duration(t[f'{name}_s'])}" for name in phases if f"{name}_s" in t)
            lines.append(f"time       {duration(t.get('wall_s', 0))} ({parts})")
        if self.run.peak_rss_bytes:
            lines.append(f"memory     {size(self.run.peak_rss_bytes)}")
        lines.append(f"run        {self.run.title}" + ("" if self.fresh else "  (was finished already)"))
        lines.append(f"database   {self.database}")
        if self.report:
            lines.append(f"report     {self.report}")
        again = self.run.provenance.get("forwarded_again")
        if again:
            lines.append(
                f"note       {again:,} images were forwarded again: candidates exceeded --memory and --cache-bytes"
            )
        lines += [f"note       {note}" for note in self.notes]
        return "\n".join(lines)


def code_version() -> str:
    try:
        return version("dissect")
    except PackageNotFoundError:
        return "unknown"


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
    request.check()
    if request.data is None:
        raise SpecError("no concept data given: add --data DIR (a folder in Broden's format, or a packed set)")
    convention = conventions.get(request.convention)
    data = broden.open(request.data, split=request.split, limit=request.limit)
    model = models.load(
        request.model, request.weights, request.trust, mean=request.mean, std=request.std, seed=request.seed,
        keep=request.layers, cache_dir=workspace.root / "cache" / "models",
    )  # fmt: skip
    for layer in request.layers:
        models.resolve_layer(model.module, layer)
    for note in model.notes:
        announce(note)
    method = pipeline.Method(
        layers=request.layers,
        convention=convention.name,
        quantile=request.quantile if request.quantile is not None else convention.quantile,
        batch_size=request.batch_size,
        input_size=request.input_size,
        mean=model.preprocessing.mean,
        std=model.preprocessing.std,
        dtype=request.dtype,
    )
    spec = _specification(request, method, model, data)
    run_id = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    with Store.open(workspace) as store, _lock(workspace, run_id):
        run = store.begin_run(
            RunRecord(
                id=run_id, name=request.name, convention=convention.name, model=model.source, source=request.model,
                weights_sha256=model.weights_sha256, data_name=data.name, data_fingerprint=data.fingerprint,
                split=request.split, quantile=method.quantile, spec=spec, code_version=code_version(),
                label_h=data.label_size[0], label_w=data.label_size[1],
            )
        )  # fmt: skip
        fresh = run.state != "finished"
        if fresh:
            try:
                run = _compute(store, run, request, method, model, data, announce, start)
            except DissectError as error:
                store.fail_run(run_id, str(error))
                raise
        return _report(store, run, request, fresh, start, announce)


def _specification(
    request: RunRequest, method: pipeline.Method, model: "models.Model", data: broden.Dataset
) -> dict[str, Any]:
    """Everything that decides the numbers, as plain JSON values."""
    spec: dict[str, Any] = {
        "model": model.source,
        "weights_sha256": model.weights_sha256,
        "data_fingerprint": data.fingerprint,
        "split": request.split,
        "limit": request.limit,
        "code_version": code_version(),
        "layers": list(method.layers),
        "convention": method.convention,
        "quantile": method.quantile,
        "batch_size": method.batch_size,
        "input_size": method.input_size,
        "mean": list(method.mean),
        "std": list(method.std),
        "dtype": method.dtype,
    }
    if model.weights_sha256 is None:
        spec["seed"] = request.seed
    return spec


@contextmanager
def _lock(workspace: Workspace, run_id: str) -> Iterator[None]:
    """One process works on a run; a killed one leaves no lock behind."""
    folder = workspace.cache_folder(run_id)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RetryLater(f"run {run_id} is being worked on by another process: wait for it, then repeat") from None
        yield


def _compute(
    store: Store, run: RunRecord, request: RunRequest, method: pipeline.Method, model: "models.Model",
    data: broden.Dataset, announce: Callable[[str], None], start: float,
) -> RunRecord:  # fmt: skip
    workspace = store.workspace
    folder = (request.cache_dir or workspace.cache_folder(run.id)) / f"unfinished-{run.id}"
    resources = pipeline.Resources(
        folder, device=request.device, memory=request.memory, disk=request.cache_bytes,
        checkpoint_seconds=request.checkpoint_seconds,
    )  # fmt: skip
    result = pipeline.dissect(model.module, data, method, resources, announce, own=True)
    cut = conventions.get(method.convention).cut
    primary = np.array(data.labels.primary)
    layers = []
    for position, layer in enumerate(result.layers.values()):
        name = workspace.save_counts(run.id, position, layer.intersection)
        workspace.save_array(workspace.exemplar_maps(run.id, position), layer.exemplars.maps)
        layers.append(_layer_record(layer, result, data, primary, cut, name))
    wall = time.perf_counter() - start
    return store.finish_run(
        run.id,
        layers,
        [
            ConceptRecord(
                label.number, label.name, int(primary[label.number]), int(result.totals.area[label.number]),
                label.frequency, label.coverage, int(result.totals.images[label.number]), tuple(label.synonyms),
            )
            for label in data.labels.present()
        ],
        [CategoryRecord(category.index, category.name) for category in data.categories],
        [ExcludedRecord(fault.position, fault.file, fault.reason) for fault in result.faults],
        images=result.images,
        excluded_images=len(result.faults),
        provenance=_provenance(request, model, data, result),
        timings=vars(result.timings) | {"report_s": 0.0, "wall_s": wall},
        peak_rss_bytes=peak_rss(),
    )  # fmt: skip


def _layer_record(
    layer: pipeline.LayerResult,
    result: pipeline.Result,
    data: broden.Dataset,
    primary: np.ndarray,
    cut: float,
    counts_file: str,
) -> LayerRecord:
    counts = scores.Counts(layer.intersection, layer.area, result.totals.area, primary)
    labels = scores.label_units(counts)
    top = layer.exemplars
    unit, rank = np.nonzero(top.image >= 0)
    position = top.image[unit, rank]
    place = top.place[unit, rank]
    return LayerRecord(
        name=layer.layer,
        map_h=layer.map_size[0],
        map_w=layer.map_size[1],
        activations=layer.n,
        top_k=layer.k,
        cut=cut,
        detectors=int(labels.detectors(cut).sum()),
        unique_detectors=labels.unique_detectors(cut),
        unique_concepts=labels.unique_concepts(cut),
        units=UnitTable(
            layer.threshold, layer.low, layer.high, layer.mean, layer.std, layer.dead, layer.saturated, layer.nonfinite,
            layer.mask, labels.label, labels.iou,
        ),
        unit_areas=layer.area,
        scores=scores.score_table(counts),
        exemplars=ExemplarTable(
            unit, rank + 1, position, np.array([data.rows[p].image for p in position.tolist()], object),
            top.value[unit, rank].astype(np.float64), place // layer.map_size[1], place % layer.map_size[1],
        ),
        counts_file=counts_file,
    )  # fmt: skip


def _provenance(
    request: RunRequest, model: "models.Model", data: broden.Dataset, result: pipeline.Result
) -> dict[str, Any]:
    import PIL
    import torch
    from PIL import features

    return {
        "data_root": str(Path(request.data or "").absolute()),
        "model_notes": list(model.notes),
        "preprocessing": model.preprocessing.origin,
        "thresholds": "exact",
        "kernels": ops.backend()["cpu"],
        "device": request.device,
        "device_name": torch.cuda.get_device_name() if request.device.startswith("cuda") else "",
        "threads": torch.get_num_threads(),
        "forward_step": result.step,
        "forwarded_again": result.forwarded_again,
        "temporary_disk_bytes": result.disk_bytes,
        "versions": {
            "dissect": code_version(),
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "jpeg": features.version_feature("libjpeg_turbo") or features.version("jpg"),
            "zlib": features.version("zlib"),
        },
    }


def _report(
    store: Store, run: RunRecord, request: RunRequest, fresh: bool, start: float, announce: Callable[[str], None]
) -> Outcome:
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
    facts = {
        layer.name: {
            "units": layer.units,
            "detectors": layer.detectors,
            "unique_detectors": layer.unique_detectors,
            "unique_concepts": layer.unique_concepts,
        }
        for layer in store.layers(run.id)
    }
    where = store.workspace.database
    return Outcome(run, facts, str(where) if where else store.where, index, fresh, notes)


def peak_rss() -> int:
    """Largest memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
