"""Safetensors files: our own check of the header before anything is read, then the library.

A file is data, but a hostile header can still ask for absurd amounts of it. Source of the format: the safetensors
README (8-byte little-endian header length, JSON header, then the bytes of all tensors without holes).
"""

import json
import math
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from dissect.errors import SpecError

MAX_HEADER = 8 << 20
MAX_TENSORS = 20_000
MAX_NAME = 1_000
WIDTHS = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


def read(path: Path) -> dict[str, Tensor]:
    """All tensors of a checked file. Raises SpecError naming what is wrong with it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check(path)
    try:
        return load_file(path)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise SpecError(f"{path} cannot be read as safetensors: {error}") from error


def metadata(path: Path) -> dict[str, str]:
    """The notes in the header of a checked file."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return dict(header.get("__metadata__", {}))


def check(path: Path) -> None:
    """Raise SpecError unless the header is sound: limits, dtypes, shapes, and offsets that tile the file exactly."""
    try:
        total = os.stat(path).st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if total < 10 or length > min(MAX_HEADER, total - 8):
                raise _fault(path, f"its header claims {length:,} bytes of {total:,}")
            raw = file.read(length)
    except OSError as error:
        raise SpecError(f"weights {path} cannot be opened: {error.strerror}") from error
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _fault(path, f"its header is no JSON object ({error})") from None
    if not isinstance(header, dict):
        raise _fault(path, "its header is no JSON object")
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise _fault(path, "its __metadata__ are not texts by name")
    if len(header) > MAX_TENSORS:
        raise _fault(path, f"it lists {len(header):,} tensors, more than {MAX_TENSORS:,}")
    spans = sorted(_span(path, name, entry) for name, entry in header.items())
    end = 0
    for start, stop in spans:
        if start != end:
            raise _fault(path, f"its tensors overlap or leave a hole at byte {start}")
        end = stop
    if end != total - 8 - length:
        raise _fault(path, f"its tensors end at byte {end:,}, the file holds {total - 8 - length:,}")


def _span(path: Path, name: str, entry: Any) -> tuple[int, int]:
    if len(name) > MAX_NAME or not name.isprintable():
        raise _fault(path, f"a tensor has the name {name[:40]!r}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _fault(path, f"the entry of tensor {name!r} is malformed")
    shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise _fault(path, f"tensor {name!r} has dtype {str(dtype)[:20]!r}")
    if not _sizes(shape) or len(shape) > 16 or not _sizes(offsets) or len(offsets) != 2:
        raise _fault(path, f"tensor {name!r} has a malformed shape or offsets")
    start, stop = offsets
    if stop - start != math.prod(shape) * WIDTHS[dtype]:
        raise _fault(path, f"tensor {name!r} of shape {shape} does not fill its {stop - start} bytes")
    return start, stop


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 1 << 48 for v in values)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _fault(path: Path, what: str) -> SpecError:
    return SpecError(f"{path} is not a sound safetensors file: {what}")
