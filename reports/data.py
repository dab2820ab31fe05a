"""Data files of a page: classic scripts that call one function with JSON. They work from disk, where fetch does not."""

import json
import math
from collections.abc import Iterable
from typing import Any


def finite(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    value = float(value)
    return value if math.isfinite(value) else None


def finites(values: Iterable[float]) -> list[float | None]:
    """A column of numbers for JSON."""
    return [v if math.isfinite(v) else None for v in (float(x) for x in values)]


def script(call: str, *values: Any) -> str:
    """'dissect.<call>(...);' with compact ASCII JSON; floats keep every digit."""
    # '<' is escaped although the text stands in a file of its own: pasting it into a page stays harmless.
    text = ",\n".join(json.dumps(v, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c") for v in values)
    return f"dissect.{call}(\n{text}\n);\n"


def parse(text: str) -> list[Any]:
    """The values of a script made by `script`."""
    body = text[text.index("(") + 1 : text.rindex(")")]
    return json.loads(f"[{body}]")
