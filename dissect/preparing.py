"""Everything that must be right before any work begins: data, network, layers, method, and the identity of the run."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import broden
from dissect import bases, conventions, models, pipeline
from dissect.errors import SpecError
from dissect.forward import default_batch_size
from dissect.process import code_version
from dissect.request import RunRequest
from dissect.store import RunRecord
from dissect.threshold_file import read_thresholds
from dissect.workspace import Workspace


@dataclass(frozen=True)
class Prepared:
    """A run that can begin. `spec` decides `run_id`; thresholds {layer: [U]} where the user brought them."""

    request: RunRequest
    data: broden.Dataset
    model: models.Model
    method: pipeline.Method
    thresholds: Mapping[str, np.ndarray] | None
    spec: Mapping[str, Any]
    run_id: str

    def resources(self, workspace: Workspace, folder: str = "") -> pipeline.Resources:
        """With what it runs in this process; `folder` keeps unfinished work apart from that of others."""
        request = self.request
        place = (request.cache_dir or workspace.cache_folder(self.run_id)) / f"unfinished-{self.run_id}{folder}"
        return pipeline.Resources(
            place, device=request.device, memory=request.memory, disk=request.cache_bytes,
            checkpoint_seconds=request.checkpoint_seconds,
        )  # fmt: skip

    def row(self) -> RunRecord:
        """The run as it stands in the database when it begins."""
        height, width = self.data.label_size
        return RunRecord(
            id=self.run_id, name=self.request.name, convention=self.method.convention, model=self.model.source,
            source=self.request.model, weights_sha256=self.model.weights_sha256, data_name=self.data.name,
            data_fingerprint=self.data.fingerprint, split=self.request.split, quantile=self.method.quantile,
            spec=self.spec, code_version=code_version(), label_h=height, label_w=width,
        )  # fmt: skip


def prepare(workspace: Workspace, request: RunRequest, announce: Callable[[str], None] = lambda line: None) -> Prepared:
    """Open, load and check all that a request names. Raises SpecError, UnsafeError, SpaceError."""
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
    size = (request.input_size, request.input_size) if request.input_size else data.image_size
    method = pipeline.Method(
        layers=request.layers,
        convention=convention.name,
        quantile=request.quantile if request.quantile is not None else convention.quantile,
        batch_size=request.batch_size or default_batch_size(size, request.device),
        input_size=request.input_size,
        mean=model.preprocessing.mean,
        std=model.preprocessing.std,
        dtype=request.dtype,
        compiled=request.compiled,
        basis=bases.recipe(request.basis) if request.basis else None,
        null=request.null,
        null_shifts=request.null_shifts,
    )
    thresholds = read_thresholds(request.thresholds, request.layers) if request.thresholds else None
    spec = _specification(request, method, model, data, thresholds)
    run_id = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    return Prepared(request, data, model, method, thresholds, spec, run_id)


def _specification(
    request: RunRequest,
    method: pipeline.Method,
    model: models.Model,
    data: broden.Dataset,
    thresholds: Mapping[str, np.ndarray] | None,
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
        "compiled": method.compiled,
    }
    if method.null:
        spec["null"] = method.null
        if method.null_shifts:
            spec["null_shifts"] = True
    if method.basis is not None:
        spec["basis"] = method.basis.key
    if thresholds is not None:
        spec["thresholds"] = {
            layer: hashlib.sha256(values.tobytes()).hexdigest() for layer, values in thresholds.items()
        }
    if model.weights_sha256 is None:
        spec["seed"] = request.seed
    return spec
