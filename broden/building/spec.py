"""What to build: a TOML file, or the same as Python objects.

size = 224              # side of the pictures, or [height, width]
label_size = 112        # default: size // 2
fit = "squash"          # or "crop": the centre, in the shape of the result
min_images = 10         # a concept needs so many images ...
min_coverage = 0.5      # ... and to cover so many whole images in all
colors = true           # eleven names a pixel; false for none; or the file of a colour-name table
quality = 95            # JPEG quality of pictures that had to be resized

[names]
rename = { sofa = "couch", "part:leaf" = "foliage" }
drop = ["object:misc"]
modifiers = ["left", "right", "front", "back", "upper", "lower", "side"]
modifier_categories = ["part"]

[[source]]
kind = "dtd"
name = "dtd"            # folder under images/
path = "data/dtd"       # relative to the spec
limit = 1000            # only the first so many images
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broden.building.names import NameRules, normal
from broden.errors import DataError
from broden.paths import fault_in
from broden.sources.base import Source

FITS = ("squash", "crop")


@dataclass(frozen=True)
class BuildSpec:
    """A build. `sources` are tables as in the TOML file, or Source objects of your own."""

    sources: Sequence[Mapping[str, Any] | Source]
    size: tuple[int, int] = (224, 224)
    label_size: tuple[int, int] = (112, 112)
    fit: str = "squash"
    min_images: int = 10
    min_coverage: float = 0.5
    colors: bool | str = True
    quality: int = 95
    names: NameRules = field(default_factory=NameRules)


class _Table:
    """A TOML table whose keys are taken out one by one, so that what is left is unknown."""

    def __init__(self, file: str, table: Mapping[str, Any]) -> None:
        self._file = file
        self._rest = dict(table)

    def error(self, reason: str) -> DataError:
        return DataError(self._file, None, reason)

    def take(self, key: str, default: Any, *kinds: type) -> Any:
        value = self._rest.pop(key, default)
        if value is not default and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise self.error(f"{key} is {value!r}; expected {' or '.join(kind.__name__ for kind in kinds)}")
        return value

    def texts(self, key: str, default: Sequence[str] = ()) -> frozenset[str]:
        value = self.take(key, list(default), list)
        if not all(isinstance(item, str) for item in value):
            raise self.error(f"{key} is {value!r}; expected a list of names")
        return frozenset(normal(item) for item in value)

    def side(self, key: str, default: tuple[int, int]) -> tuple[int, int]:
        value = self.take(key, None, int, list)
        if value is None:
            return default
        pair = [value, value] if isinstance(value, int) else value
        if len(pair) != 2 or not all(isinstance(n, int) and 8 <= n <= 4096 for n in pair):
            raise self.error(f"{key} is {value!r}; expected pixels in 8..4096, or [height, width]")
        return int(pair[0]), int(pair[1])

    def done(self) -> None:
        if self._rest:
            raise self.error(f"unknown key {min(self._rest)!r}")


def read_spec(path: Path) -> BuildSpec:
    """The spec in a TOML file; paths in it are relative to it. Raises DataError."""
    try:
        raw = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise DataError(str(path), None, error.strerror or "cannot be read") from None
    except UnicodeDecodeError:
        raise DataError(str(path), None, "not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(str(path), None, f"not TOML: {error}") from None
    table = _Table(str(path), raw)
    size = table.side("size", (224, 224))
    label_size = table.side("label_size", (size[0] // 2, size[1] // 2))
    fit = table.take("fit", "squash", str)
    if fit not in FITS:
        raise table.error(f"fit is {fit!r}; expected {' or '.join(FITS)}")
    min_images = table.take("min_images", 10, int)
    min_coverage = float(table.take("min_coverage", 0.5, int, float))
    colors = table.take("colors", True, bool, str)
    if isinstance(colors, str):
        colors = str(path.parent / colors)
    quality = table.take("quality", 95, int)
    if not 1 <= quality <= 100 or min_images < 0 or not min_coverage >= 0:
        raise table.error("quality must lie in 1..100, min_images and min_coverage be at least 0")
    names = _Table(f"{path} [names]", table.take("names", {}, dict))
    rename = names.take("rename", {}, dict)
    if not all(isinstance(value, str) for value in rename.values()):
        raise names.error("rename maps names to names")
    rules = NameRules(
        {normal(old): new for old, new in rename.items()},
        names.texts("drop"),
        names.texts("modifiers"),
        names.texts("modifier_categories", ("part",)),
    )
    names.done()
    sources = table.take("source", [], list)
    table.done()
    return BuildSpec(
        check_sources(sources, path), size, label_size, fit, min_images, min_coverage, colors, quality, rules
    )


def check_sources(sources: Sequence[Any], path: Path) -> list[dict[str, Any]]:
    """Tables of [[source]], each with a name of its own and an absolute path. Raises DataError."""
    checked: list[dict[str, Any]] = []
    for place, source in enumerate(sources, 1):
        where = f"{path} [[source]] {place}"
        if not isinstance(source, dict):
            raise DataError(where, None, "expected a table")
        for key in ("kind", "name", "path"):
            if not isinstance(source.get(key), str):
                raise DataError(where, None, f"{key} is {source.get(key)!r}; expected text")
        name = source["name"]
        if fault_in(name) is not None or "/" in name:
            raise DataError(where, None, f"name {name!r} cannot name a folder")
        if any(other["name"] == name for other in checked):
            raise DataError(where, None, f"another source is named {name!r}; give each its own name")
        checked.append({**source, "path": str(path.parent / source["path"])})
    if not checked:
        raise DataError(str(path), None, "no [[source]]; expected at least one")
    return checked
