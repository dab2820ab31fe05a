"""CSV files in and out: UTF-8, named columns, every error with file and row."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence

from broden.errors import DataError, InputFault
from broden.paths import Root

MAX_TABLE_BYTES = 2**31


class Record:
    """One row of a table: typed access to its cells. `line` is the 1-based line of the file on which it ends."""

    __slots__ = ("_cells", "_columns", "file", "line")

    def __init__(self, file: str, line: int, columns: dict[str, int], cells: list[str]) -> None:
        self.file = file
        self.line = line
        self._columns = columns
        self._cells = cells

    def error(self, reason: str) -> DataError:
        """A DataError that points at this row."""
        return DataError(self.file, self.line, reason)

    def text(self, column: str) -> str:
        """The cell as text."""
        return self._cells[self._columns[column]]

    def integer(self, column: str, low: int, high: int) -> int:
        """The cell as a decimal integer in low..high. Raises DataError."""
        text = self.text(column)
        if not (text.isascii() and text.isdecimal() and len(text) < 20) or not low <= int(text) <= high:
            raise self.error(f"column {column} is {text[:80]!r}; expected a whole number in {low}..{high}")
        return int(text)

    def real(self, column: str) -> float:
        """The cell as a finite number >= 0. Raises DataError."""
        text = self.text(column)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0:
            raise self.error(f"column {column} is {text[:80]!r}; expected a number of at least 0")
        return value


def decode_text(file: str, data: bytes) -> str:
    """UTF-8 text, a byte order mark taken off. Raises DataError naming the line of the first wrong byte."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(file, line, f"not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8") from None


def read_table(root: Root, file: str, columns: Sequence[str]) -> Iterator[Record]:
    """Rows of the CSV `file`, which must have at least `columns` (in any order). Raises DataError."""
    try:
        data = root.read(file, MAX_TABLE_BYTES)
    except InputFault as fault:
        raise DataError(file, None, f"{fault.reason}; a Broden-format set needs this file") from None
    return parse_table(file, data, columns)


def parse_table(file: str, data: bytes, columns: Sequence[str]) -> Iterator[Record]:
    """Rows of CSV bytes; see read_table. Blank lines are skipped. Raises DataError."""
    reader = csv.reader(io.StringIO(decode_text(file, data), newline=""), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise DataError(file, None, f"file is empty; expected a header with {', '.join(columns)}")
        missing = [name for name in columns if name not in header]
        if missing:
            raise DataError(file, 1, f"no column {missing[0]!r}; expected {', '.join(columns)}; found {header[:20]}")
        twice = next((name for name in columns if header.count(name) > 1), None)
        if twice is not None:
            raise DataError(file, 1, f"column {twice!r} stands there twice")
        place = {name: index for index, name in enumerate(header)}
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(file, reader.line_num, f"{len(cells)} cells; expected {len(header)} as in the header")
            yield Record(file, reader.line_num, place, cells)
    except csv.Error as error:
        raise DataError(file, reader.line_num, f"not a CSV row ({error})") from None


def table_bytes(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """CSV bytes with a header, UTF-8, line feeds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue().encode("utf-8")
