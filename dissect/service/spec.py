"""SPEC.toml: many runs in one file, checked whole before anything is queued.

    priority = 1                         # higher first; default 0
    shards = 8                           # default: one for about 65,536 images

    [[run]]
    model = ["resnet18", "resnet50"]     # lists span: every model with every data set
    layers = ["layer3", "layer4"]        # layers of one run share its pass
    data = "broden1_224"
    name = "{model}-{data}"              # {model} and {data} stand for what the lists say

Keys of a run are the options of `dissect run`; an unknown one is refused.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from dissect.errors import SpecError
from dissect.request import RunRequest
from dissect.suggest import suggestion

_KINDS: dict[str, tuple[type, ...]] = {
    "model": (str,), "layers": (list,), "data": (str,), "weights": (str,), "trust": (str,), "name": (str,),
    "convention": (str,), "quantile": (float,), "batch_size": (int,), "device": (str,), "dtype": (str,),
    "compiled": (bool,), "basis": (str,), "null": (int,), "null_shifts": (bool,),
    "limit": (int,), "split": (str,), "input_size": (int,),
    "mean": (list, float), "std": (list, float), "seed": (int,), "memory": (int,), "cache_dir": (str,),
    "cache_bytes": (int,), "report": (bool,), "thresholds": (str,),
}  # fmt: skip
_SPANNING = ("model", "data")
_PATHS = ("cache_dir", "thresholds")


@dataclass(frozen=True)
class Spec:
    """What a file asks for; shards None: by the number of images."""

    requests: tuple[RunRequest, ...]
    priority: int
    shards: int | None


def read_spec(path: Path) -> Spec:
    """Raises SpecError, naming the place, for what is no such file."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"spec {path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"spec {path} is no TOML: {error}") from None
    _known(content, ("priority", "shards", "run"), f"spec {path}")
    runs = content.get("run", [])
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise SpecError(f"spec {path} asks for no run: add a table [[run]] with model, layers and data")
    shards = content.get("shards")
    if shards is not None and (type(shards) is not int or not 1 <= shards <= 64):
        raise SpecError(f"spec {path}: shards is {shards!r}, expected 1 to 64")
    priority = content.get("priority", 0)
    if type(priority) is not int:
        raise SpecError(f"spec {path}: priority is {priority!r}, expected a whole number")
    found = [request for number, run in enumerate(runs, 1) for request in _requests(run, f"spec {path}, run {number}")]
    named: dict[str, RunRequest] = {}
    for request in found:
        if request.name and named.setdefault(request.name, request) != request:
            raise SpecError(f"spec {path}: two different runs share the name {request.name!r}")
    return Spec(tuple(found), priority, shards)


def _requests(run: Mapping[str, Any], where: str) -> list[RunRequest]:
    _known(run, tuple(_KINDS), where)
    for key in ("model", "layers", "data"):
        if key not in run:
            raise SpecError(f"{where}: {key} is missing")
    spans = []
    for key in _SPANNING:
        values = run[key] if isinstance(run[key], list) else [run[key]]
        if not values or not all(isinstance(value, str) for value in values):
            raise SpecError(f"{where}: {key} is {run[key]!r}, expected a name or a list of names")
        spans.append(values)
    for key, value in run.items():
        if key not in _SPANNING and (
            not isinstance(value, _KINDS[key]) or (type(value) is bool and bool not in _KINDS[key])
        ):
            raise SpecError(f"{where}: {key} is {value!r}, expected {' or '.join(k.__name__ for k in _KINDS[key])}")
    found = []
    for model, data in product(*spans):
        given = {key: _value(key, value, where) for key, value in run.items()} | {"model": model, "data": data}
        if "name" in given:
            given["name"] = given["name"].replace("{model}", model).replace("{data}", Path(data).name)
        found.append(RunRequest(**given))
    names = [request.name for request in found if request.name]
    if len(names) != len(set(names)):
        raise SpecError(f"{where}: the runs would share the name {names[0]!r}: put {{model}} or {{data}} into it")
    return found


def _value(key: str, value: Any, where: str) -> Any:
    if key in ("mean", "std"):
        triple = tuple(float(part) for part in (value if isinstance(value, list) else [value] * 3))
        if len(triple) != 3:
            raise SpecError(f"{where}: {key} is {value!r}, expected three numbers")
        return triple
    if key == "layers":
        return tuple(str(layer) for layer in value)
    return Path(value) if key in _PATHS else value


def _known(values: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    for key in values:
        if key not in names:
            raise SpecError(f"{where}: unknown key {key!r}{suggestion(key, list(names))}")
