"""The one Jinja environment: everything is escaped, an undefined name is an error."""

import functools
import hashlib
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from . import text

HERE = Path(__file__).resolve().parent
STATIC = ("report.css", "report.js", "icon.svg")
CATEGORY_HUES = {name: hue for hue, name in enumerate(text.ORDER)}


@functools.cache
def environment() -> Environment:
    """Templates of this package."""
    env = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    env.filters.update(integer=text.integer, iou=text.iou, number=text.number, plural=text.plural)
    env.filters.update(percent=text.percent, signed=text.signed)
    return env


def page(template: str, **values: Any) -> str:
    """A rendered page."""
    return environment().get_template(template).render(**values)


def hues(categories: tuple[str, ...]) -> dict[str, int]:
    """Colour index of each category; the six of the published figures keep theirs, others share the seventh."""
    return {name: CATEGORY_HUES.get(name, 6) for name in categories}


@functools.cache
def static(name: str) -> bytes:
    """A static file as it goes into a report: the script without indentation, comments, and what space it can spare."""
    content = (HERE / "static" / name).read_bytes()
    if name.endswith(".js"):
        lines = (
            re.sub(r"(?:^|(?<=[{;,]))\s*// .*$", "", line.strip()) for line in content.decode("utf-8").splitlines()
        )
        kept = "".join(f"{_squeezed(line)}\n" for line in lines if line)
        content = re.sub(r"(?<=[,;{(\[])\n", "", kept.replace("{ ", "{").replace(" }", "}")).encode("utf-8")
    return content


def _squeezed(line: str) -> str:
    """A line of script without the spaces around operators, but not inside strings and templates; a line with several
    templates is left as it is: one may lie in another."""
    if line.count("`") not in (0, 2):
        return line
    parts = re.split(r'("(?:[^"\\]|\\.)*"|`[^`]*`)', line)
    return "".join(part if k % 2 else re.sub(r"\s*([=?:,&|<>+*;{}()])\s*", r"\1", part) for k, part in enumerate(parts))


@functools.cache
def version() -> str:
    """Digest of everything that decides how pages look: sources, templates, style and script of this package."""
    digest = hashlib.sha256()
    for path in sorted([*HERE.glob("*.py"), *HERE.glob("templates/*"), *HERE.glob("static/*")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
