"""Rows as table, csv, tsv, json, ndjson, markdown, parquet or arrow.

Machine formats carry full precision and round trip; JSON is ASCII and has finite numbers only. Table and markdown
are for eyes: control characters are written out, so that no label can drive a terminal.
"""

import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import IO, Any

from dissect.errors import SpecError

TEXT_FORMATS = ("table", "csv", "tsv", "json", "ndjson", "markdown")
BINARY_FORMATS = ("parquet", "arrow")
FORMATS = TEXT_FORMATS + BINARY_FORMATS

REALS = frozenset(
    {
        "iou", "threshold", "best_iou", "activation", "iou_a", "iou_b", "best_iou_a", "best_iou_b", "iou_low",
        "iou_high", "stability", "p_value", "q_value", "iou_null", "precision", "recall", "f1", "phi", "iqr", "ap",
    }
)  # fmt: skip
TEXTS = frozenset(
    {
        "run", "run_name", "name", "layer", "concept", "category", "image", "reason", "state", "model", "source",
        "convention", "data", "split", "created_at", "finished_at", "error", "facet", "value", "concept_a",
        "concept_b", "change",
    }
)  # fmt: skip
_ID = re.compile(r"[0-9a-f]{13,}")  # shown by its beginning
_BATCH = 50_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Row = Sequence[Any]


def write(
    stream: IO[str],
    kind: str,
    columns: Sequence[str],
    rows: Iterable[Row],
    excel_safe: bool = False,
    terminal: bool = False,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write rows to a text stream (binary formats to its `buffer`, with their metadata). `terminal` has csv and tsv
    write control characters out as well. Raises SpecError for an unknown format or a missing extra."""
    if kind in BINARY_FORMATS:
        stream.flush()
        write_binary(stream.buffer, kind, columns, rows, metadata)  # type: ignore[attr-defined]
    elif kind in ("csv", "tsv"):
        _write_separated(stream, "," if kind == "csv" else "\t", columns, rows, excel_safe, terminal)
    elif kind in _WRITERS:
        _WRITERS[kind](stream, columns, rows)
    else:
        raise SpecError(f"format {kind!r} is unknown: expected one of {', '.join(FORMATS)}")


def plain(value: Any) -> Any:
    """A value as JSON may hold it: not finite becomes None, bytes hexadecimal text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.hex() if isinstance(value, bytes) else value


def printable(text: str) -> str:
    r"""Text without control, format and separator characters of effect: ESC becomes \x1b, a line end \n."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or unicodedata.category(character) in ("Zs", "Co", "Cn")
        else _escape(character)
        for character in text
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii") if character != "\u00ad" else "\\xad"


def _write_json(stream: IO[str], columns: Sequence[str], rows: Iterable[Row]) -> None:
    """One list, one object a line."""
    opening = "[\n"
    for row in rows:
        stream.write(opening + _object(columns, row))
        opening = ",\n"
    stream.write("[]\n" if opening == "[\n" else "\n]\n")


def _write_lines(stream: IO[str], columns: Sequence[str], rows: Iterable[Row]) -> None:
    for row in rows:
        stream.write(_object(columns, row) + "\n")


def _object(columns: Sequence[str], row: Row) -> str:
    return json.dumps({name: plain(value) for name, value in zip(columns, row)}, allow_nan=False)


def _write_separated(
    stream: IO[str], separator: str, columns: Sequence[str], rows: Iterable[Row], excel_safe: bool, terminal: bool
) -> None:
    def cell(value: Any) -> Any:
        value = plain(value)
        if isinstance(value, str):
            if excel_safe and value.startswith(_FORMULA):
                value = "'" + value
            if terminal:
                value = printable(value)
        return value

    writer = csv.writer(stream, delimiter=separator, lineterminator="\n")
    writer.writerow([cell(name) for name in columns])
    for row in rows:
        writer.writerow([cell(value) for value in row])


def _shown(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if name in REALS and name not in ("threshold", "activation") else f"{value:.6g}"
    text = printable(plain(value) if isinstance(value, bytes) else str(value))
    return text[:12] if name == "run" and _ID.fullmatch(text) else text


def _width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _write_table(stream: IO[str], columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Columns in line, by batches: the widths of a batch are its own only where a later row is wider."""
    source = iter(rows)
    first = True
    while batch := list(islice(source, _BATCH)):
        cells = [[_shown(name, value) for name, value in zip(columns, row)] for row in batch]
        numeric = [all(isinstance(row[i], int | float | None) for row in batch) for i in range(len(columns))]
        widths = [max(_width(name), *(_width(row[i]) for row in cells)) for i, name in enumerate(columns)]
        lines = ([list(columns), ["-" * width for width in widths]] if first else []) + cells
        for line in lines:
            parts = [
                " " * (width - _width(text)) + text if right else text + " " * (width - _width(text))
                for text, width, right in zip(line, widths, numeric)
            ]
            stream.write("  ".join(parts).rstrip() + "\n")
        first = False
    if first:
        stream.write("(no rows)\n")


def _write_markdown(stream: IO[str], columns: Sequence[str], rows: Iterable[Row]) -> None:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |\n"

    stream.write(line(_markdown(name) for name in columns) + line("---" for _ in columns))
    for row in rows:
        stream.write(line(_markdown(_shown(name, value)) for name, value in zip(columns, row)))


def _markdown(text: str) -> str:
    for mark in "\\`*_[]|~#!":
        text = text.replace(mark, "\\" + mark)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_WRITERS: dict[str, Callable[[IO[str], Sequence[str], Iterable[Row]], None]] = {
    "table": _write_table,
    "json": _write_json,
    "ndjson": _write_lines,
    "markdown": _write_markdown,
}


def arrow() -> Any:
    """pyarrow. Raises SpecError where it is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SpecError("parquet and arrow need pyarrow: pip install 'dissect[parquet]'") from error
    return pyarrow


def schema(columns: Sequence[str], sample: Sequence[Row]) -> Any:
    """Arrow types of columns: by name where the name is one of ours, else by the values of the first rows."""
    library = arrow()
    fields = []
    for place, name in enumerate(columns):
        values = [row[place] for row in sample if row[place] is not None]
        if (name in TEXTS and not values) or any(isinstance(value, str | bytes) for value in values):
            kind = library.string()
        elif name in REALS or any(isinstance(value, float) for value in values):
            kind = library.float64()
        else:
            kind = library.int64()
        fields.append(library.field(name, kind))
    return library.schema(fields)


def batch(columns: Sequence[str], rows: Sequence[Row], kinds: Any) -> Any:
    """An Arrow record batch of rows."""
    library = arrow()
    taken = list(zip(*rows)) if rows else [()] * len(columns)
    arrays = []
    for values, field in zip(taken, kinds):
        if field.type == library.string():
            values = tuple(None if value is None else str(plain(value)) for value in values)
        elif field.type == library.float64():
            values = tuple(None if value is None or not math.isfinite(value) else float(value) for value in values)
        arrays.append(library.array(values, field.type))
    return library.record_batch(arrays, schema=kinds)


def write_binary(
    stream: IO[bytes], kind: str, columns: Sequence[str], rows: Iterable[Row], metadata: dict[str, str] | None = None
) -> None:
    """Parquet (zstd) or an Arrow IPC stream, batch by batch; metadata goes into the file's schema."""
    library = arrow()
    source = iter(rows)
    first = list(islice(source, _BATCH))
    kinds = schema(columns, first)
    if metadata:
        kinds = kinds.with_metadata(metadata)
    sink: Any = io.BytesIO() if kind == "parquet" else stream
    opened = (
        library.parquet.ParquetWriter(sink, kinds, compression="zstd")
        if kind == "parquet"
        else library.ipc.new_stream(sink, kinds)
    )
    with opened as writer:
        part = first
        while part:
            writer.write_batch(batch(columns, part, kinds))
            part = list(islice(source, _BATCH))
    if kind == "parquet":
        stream.write(sink.getvalue())
    stream.flush()
