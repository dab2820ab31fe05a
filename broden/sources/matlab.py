"""Reading MATLAB 5 files (.mat, also compressed): numbers, text, cells, structs. Nothing in them is ever run.

Format: MathWorks, "MAT-File Format", Level 5. A struct array becomes an object array of dicts, a cell array an
object array, text a str (rows of a char matrix joined), numbers a NumPy array.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
MATRIX, COMPRESSED = 14, 15
UTF = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
MAX_BYTES = 2**30
MAX_DEPTH = 16


class MatlabError(ValueError):
    """The bytes are not a MATLAB 5 file that we read."""


class _Reader:
    def __init__(self, data: bytes | memoryview, order: str) -> None:
        self.data = memoryview(data)
        self.order = order
        self.at = 0

    def more(self) -> bool:
        return self.at + 8 <= len(self.data)

    def element(self) -> tuple[int, memoryview]:
        """Type and bytes of the next element."""
        if not self.more():
            raise MatlabError("file is cut short")
        first, size = struct.unpack_from(self.order + "II", self.data, self.at)
        if first >> 16:  # small element: size and type in one word, data in the next
            kind, size, start, end = first & 0xFFFF, first >> 16, self.at + 4, self.at + 8
            if size > 4:
                raise MatlabError("wrong small element")
        else:
            kind, start = first, self.at + 8
            # Compressed elements are not padded.
            end = start + (size if kind == COMPRESSED else -(-size // 8) * 8)
        stop = start + size
        if stop > len(self.data):
            raise MatlabError("file is cut short")
        self.at = end
        return kind, self.data[start:stop]


def _numbers(kind: int, data: memoryview, order: str) -> np.ndarray:
    if kind not in NUMBERS:
        raise MatlabError(f"numbers of type {kind}")
    form = np.dtype(order + NUMBERS[kind])
    if len(data) % form.itemsize:
        raise MatlabError("wrong length of numbers")
    return np.frombuffer(data, form)


def _text(kind: int, data: memoryview, order: str) -> str:
    if kind in UTF:
        code = UTF[kind] if kind == 16 else UTF[kind] + ("-le" if order == "<" else "-be")
        return bytes(data).decode(code, "replace")
    return "".join(map(chr, _numbers(kind, data, order).tolist()))


def _matrix(data: memoryview, order: str, depth: int) -> tuple[str, Any]:
    """Name and value of a matrix element."""
    if depth > MAX_DEPTH:
        raise MatlabError("nested too deeply")
    if not len(data):
        return "", np.zeros((0, 0))
    inside = _Reader(data, order)
    flags = _numbers(*inside.element(), order)
    shape = tuple(_numbers(*inside.element(), order).tolist())
    name = _text(*inside.element(), order)
    if not len(flags) or any(side < 0 for side in shape):
        raise MatlabError("wrong matrix header")
    count = int(np.prod(shape, dtype=object)) if shape else 0
    if count > MAX_BYTES:
        raise MatlabError("matrix is too large")
    kind = int(flags[0]) & 0xFF
    if kind == 4:
        text = _text(*inside.element(), order) if inside.more() else ""
        if len(shape) == 2 and shape[0] > 1:  # stored by columns
            rows = ["".join(text[row :: shape[0]]) for row in range(shape[0])]
            text = "\n".join(rows)
        return name, text
    if kind == 1:
        return name, _filled(shape, [_child(inside, order, depth) for _ in range(_fits(count, inside))])
    if kind in (2, 3):
        if kind == 3:
            inside.element()  # class name
        width = int(_numbers(*inside.element(), order)[0])
        joined = bytes(inside.element()[1])
        if width < 1:
            raise MatlabError("wrong field names")
        fields = [joined[i : i + width].split(b"\0")[0].decode("latin-1") for i in range(0, len(joined), width)]
        _fits(count * max(1, len(fields)), inside)
        items = [{field: _child(inside, order, depth) for field in fields} for _ in range(count)]
        return name, _filled(shape, items)
    if kind not in CLASSES:
        raise MatlabError(f"array of class {kind} is not read")
    values = _numbers(*inside.element(), order).astype(CLASSES[kind])
    if values.size != count:
        raise MatlabError("wrong number of values")
    return name, values.reshape(shape, order="F")


def _fits(count: int, inside: _Reader) -> int:
    """Each child takes at least eight bytes: a larger count is a lie."""
    if count * 8 > len(inside.data):
        raise MatlabError("file is cut short")
    return count


def _child(inside: _Reader, order: str, depth: int) -> Any:
    kind, data = inside.element()
    if kind != MATRIX:
        raise MatlabError(f"element of type {kind} where a matrix was expected")
    return _matrix(data, order, depth + 1)[1]


def _filled(shape: tuple[int, ...], items: list[Any]) -> np.ndarray:
    flat = np.empty(len(items), object)
    for index, item in enumerate(items):
        flat[index] = item
    return flat.reshape(shape, order="F")


def load(data: bytes) -> dict[str, Any]:
    """Variables of a MATLAB 5 file by name. Raises MatlabError."""
    if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
        raise MatlabError("not a MATLAB 5 file")
    order = "<" if data[126:128] == b"IM" else ">"
    outer = _Reader(memoryview(data)[128:], order)
    found: dict[str, Any] = {}
    try:
        while outer.more():
            kind, content = outer.element()
            if kind == COMPRESSED:
                stream = zlib.decompressobj()
                plain = stream.decompress(content, MAX_BYTES)
                if not stream.eof:
                    raise MatlabError("compressed element is cut short or too large")
                kind, content = _Reader(plain, order).element()
            if kind == MATRIX:
                name, value = _matrix(content, order, 0)
                found[name] = value
    except (struct.error, zlib.error, ValueError, IndexError, OverflowError) as error:
        raise MatlabError(str(error)) from None
    return found


def strings(value: Any) -> list[str]:
    """A cell array of text as a list."""
    if not isinstance(value, np.ndarray) or value.dtype != object:
        raise MatlabError("expected a cell array of text")
    return [item if isinstance(item, str) else "" for item in value.reshape(-1, order="F").tolist()]
