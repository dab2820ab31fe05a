"""Filters from text: command line options and HTTP parameters have the same names and mean the same.

    run layer unit concept category min_iou max_iou rank detectors search state complete image excluded

A field may be given several times; rank is a number or "all"; flags are 1/0, true/false, yes/no.
"""

import argparse
import base64
import binascii
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from dissect.errors import SpecError
from dissect.store.filters import STATES, ConceptFilter, ImageFilter, Key, UnitFilter
from dissect.suggest import suggestion

Filter = TypeVar("Filter", UnitFilter, ConceptFilter, ImageFilter)

_MANY = {"run": "runs", "layer": "layers", "unit": "units", "concept": "concepts", "category": "categories"}
_FLAGS = ("detectors", "complete", "excluded")
_TRUE, _FALSE = ("1", "true", "yes", "on", ""), ("0", "false", "no", "off")


def add_filter(parser: argparse.ArgumentParser, kind: type[Any]) -> None:
    """Options for the fields of a filter; what is not given stays out of the namespace's `filter_*`."""
    names = {field.name for field in fields(kind)}
    group = parser.add_argument_group("filters (several values of one are alternatives)")

    def add(field: str, *flags: str, **options: Any) -> None:
        if field in names:
            group.add_argument(*flags, dest=f"filter_{field}", default=None, **options)

    add("runs", "--run", action="append", metavar="RUN", help="id, name or beginning of an id (default: all finished)")
    add("layers", "--layer", action="append", metavar="L", help="layer name")
    add("units", "--unit", action="append", metavar="U", help="unit number, from 0")
    add("concepts", "--concept", action="append", metavar="NAME", help="concept, as in label.csv, or a synonym")
    add("categories", "--category", action="append", metavar="NAME", help="category")
    add("search", "--search", metavar="TEXT", help="part of a concept's name")
    add("min_iou", "--min-iou", metavar="X", help="IoU >= X")
    add("max_iou", "--max-iou", metavar="X", help="IoU <= X")
    add(
        "rank",
        "--rank",
        metavar="R|all",
        help="the R-th best concept of each unit, or all that are stored (default: 1)",
    )
    add("detectors", "--detectors", action="store_const", const="1", help="only above the layer's cut")
    add("state", "--state", choices=STATES, help="only units that are so")
    add("complete", "--complete", action="store_const", const="1", help="every pair of the named concepts or units")
    add("image", "--image", metavar="TEXT", help="part of the image's file name")
    add("excluded", "--excluded", action="store_const", const="1", help="images that were set aside instead")


@dataclass(frozen=True)
class Parameter:
    """One field of a filter as a request names it."""

    name: str
    help: str
    several: bool


def parameters(kind: type[Any]) -> list[Parameter]:
    """The parameters of a filter, from the options of `add_filter`: the same names and the same help."""
    parser = argparse.ArgumentParser(add_help=False)
    add_filter(parser, kind)
    found = [(action.option_strings[0].removeprefix("--").replace("-", "_"), action) for action in parser._actions]
    return [Parameter(name, action.help or "", name in _MANY) for name, action in found]


def from_options(kind: type[Filter], args: argparse.Namespace) -> Filter:
    """The filter that the options of `add_filter` describe. Raises SpecError."""
    given = {}
    for field in fields(kind):
        value = getattr(args, f"filter_{field.name}", None)
        if value is not None:
            given[_single(field.name)] = value if isinstance(value, list) else [value]
    return from_text(kind, given, "--")


def from_text(kind: type[Filter], given: Mapping[str, Sequence[str]], prefix: str = "") -> Filter:
    """A filter from parameters by name, each with its values. Raises SpecError naming the parameter."""
    names = {_single(field.name): field.name for field in fields(kind)}
    values: dict[str, Any] = {}
    for name, texts in given.items():
        shown = prefix + (name.replace("_", "-") if prefix else name)
        if name not in names:
            raise SpecError(f"no filter {shown!r} here{suggestion(name, sorted(names))}")
        if name in _MANY:
            values[names[name]] = tuple(_unit(shown, text) if name == "unit" else text for text in texts)
        elif len(texts) != 1:
            raise SpecError(f"{shown} was given {len(texts)} times: expected once")
        else:
            values[name] = _value(name, shown, texts[0])
    if values.get("complete") and "rank" not in values:
        values["rank"] = None
    return kind(**values)


def _single(field: str) -> str:
    return next((name for name, many in _MANY.items() if many == field), field)


def _value(name: str, shown: str, text: str) -> Any:
    if name in ("min_iou", "max_iou"):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise SpecError(f"{shown} {text!r} is no number: expected an IoU such as 0.04")
        return number
    if name == "rank":
        if text.lower() == "all":
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
            raise SpecError(f"{shown} {text!r} is no rank: expected 1, 2 … or all")
        return int(text)
    if name in _FLAGS:
        if text.lower() not in _TRUE + _FALSE:
            raise SpecError(f"{shown} {text!r} is no flag: expected 1 or 0")
        return text.lower() in _TRUE
    if name == "state" and text not in STATES:
        raise SpecError(f"{shown} {text!r} is no state: expected one of {', '.join(STATES)}")
    return text


def _unit(shown: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise SpecError(f"{shown} {text!r} is no unit: expected a number from 0")
    return int(text)


def filter_digest(wanted: Any) -> str:
    """Eight characters that tell filters apart."""
    return hashlib.sha256(json.dumps(asdict(wanted), sort_keys=True).encode()).hexdigest()[:8]


def page_token(key: Key, wanted: UnitFilter) -> str:
    """Where the next page of this filter begins, as text fit for a URL."""
    content = [filter_digest(wanted), key.iou, key.unit, key.layer, key.rank]
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def read_token(token: str, wanted: UnitFilter) -> Key:
    """The key in a token. Raises SpecError for a damaged one or one of another filter."""
    bad = SpecError("the page token is damaged: begin again without it")
    if len(token) > 400 or not token.isascii():
        raise bad
    try:
        content = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, UnicodeDecodeError, ValueError, RecursionError):
        raise bad from None
    if not isinstance(content, list) or [type(item) for item in content] != [str, float, int, int, int]:
        raise bad
    digest, iou, unit, layer, rank = content
    if not 0 <= iou <= 1 or any(not 0 <= number < 1 << 62 for number in (unit, layer, rank)):
        raise bad
    if digest != filter_digest(wanted):
        raise SpecError("the page token belongs to another filter: begin again without it")
    return Key(iou, unit, layer, rank)
