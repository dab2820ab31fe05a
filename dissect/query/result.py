"""Rows in hand: for Python, notebooks and data frames."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from dissect.errors import SpecError
from dissect.query import formats

_SHOWN = 50  # rows of a notebook's table


@dataclass(frozen=True)
class Result:
    """Columns and rows of a query. `next` continues a page, where there is more."""

    columns: tuple[str, ...]
    tuples: Sequence[tuple[Any, ...]]
    next: str | None = None

    def __len__(self) -> int:
        return len(self.tuples)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(zip(self.columns, row)) for row in self.tuples)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dict a row."""
        return list(self)

    def column(self, name: str) -> list[Any]:
        """The values of one column. Raises SpecError."""
        if name not in self.columns:
            raise SpecError(f"no column {name!r}: expected one of {', '.join(self.columns)}")
        place = self.columns.index(name)
        return [row[place] for row in self.tuples]

    def to_arrow(self) -> Any:
        """A pyarrow Table. Raises SpecError where pyarrow is missing."""
        kinds = formats.schema(self.columns, self.tuples)
        return formats.arrow().Table.from_batches([formats.batch(self.columns, self.tuples, kinds)], kinds)

    def to_pandas(self) -> Any:
        """A pandas DataFrame. Raises SpecError where pandas is missing."""
        try:
            import pandas
        except ImportError as error:
            raise SpecError("to_pandas needs pandas: pip install pandas") from error
        return pandas.DataFrame.from_records(list(self.tuples), columns=list(self.columns))

    def to_polars(self) -> Any:
        """A polars DataFrame. Raises SpecError where polars is missing."""
        try:
            import polars
        except ImportError as error:
            raise SpecError("to_polars needs polars: pip install polars") from error
        return polars.DataFrame(list(self.tuples), schema=list(self.columns), orient="row", infer_schema_length=None)

    def to_text(self, kind: str = "table") -> str:
        """The rows in one of the text formats of `dissect query`."""
        if kind in formats.BINARY_FORMATS:
            raise SpecError(f"{kind} is no text: use to_arrow(), or `dissect query … --format {kind}`")
        stream = io.StringIO()
        formats.write(stream, kind, self.columns, self.tuples)
        return stream.getvalue()

    def __repr__(self) -> str:
        shown = Result(self.columns, self.tuples[:10]).to_text()
        return shown + (f"… {len(self)} rows\n" if len(self) > 10 else "")

    def _repr_html_(self) -> str:
        """A table for notebooks; everything in it is escaped."""
        head = "".join(f"<th>{_html(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{_html(value)}</td>" for value in row) + "</tr>" for row in self.tuples[:_SHOWN]
        )
        note = f"<caption>{len(self)} rows, the first {_SHOWN} shown</caption>" if len(self) > _SHOWN else ""
        return f"<table>{note}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html(value: Any) -> str:
    return "" if value is None else escape(formats.printable(str(value)), quote=True)
