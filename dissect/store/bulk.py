"""Many rows at once: COPY on PostgreSQL, prepared statements on SQLite; columns in, columns out."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Executable, Table

_CHUNK = 20_000  # rows turned into Python values at a time


def _values(column: Any) -> list[Any]:
    """Python values of a column; what is not finite becomes None."""
    if not isinstance(column, np.ndarray):
        return list(column)
    if column.dtype.kind == "b":
        return column.astype(np.int64).tolist()
    if column.dtype.kind != "f":
        return column.tolist()
    values = column.astype(np.float64).tolist()
    if not np.isfinite(column).all():
        values = [value if value - value == 0 else None for value in values]
    return values


def rows(columns: Sequence[Any], count: int) -> Iterator[list[tuple[Any, ...]]]:
    """Chunks of row tuples; a column is an array, a sequence, or a single value that all rows share."""
    for first in range(0, count, _CHUNK):
        last = min(count, first + _CHUNK)
        parts = [
            _values(column[first:last]) if isinstance(column, np.ndarray | list | tuple) else [column] * (last - first)
            for column in columns
        ]
        yield list(zip(*parts))


def insert(connection: Connection, table: Table, columns: dict[str, Any], count: int) -> None:
    """Insert `count` rows into the named columns, in the order given."""
    quote = connection.dialect.identifier_preparer.quote
    names = ", ".join(quote(name) for name in columns)
    chunks = rows(list(columns.values()), count)
    if connection.dialect.name == "postgresql":
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(f"COPY {quote(table.name)} ({names}) FROM STDIN") as copy:
            for chunk in chunks:
                for row in chunk:
                    copy.write_row(row)
        return
    marks = ", ".join("?" * len(columns))
    statement = f"INSERT INTO {quote(table.name)} ({names}) VALUES ({marks})"
    for chunk in chunks:
        connection.exec_driver_sql(statement, chunk)


def read(connection: Connection, query: Executable, kinds: dict[str, Any]) -> dict[str, np.ndarray]:
    """Columns of a query: `kinds` gives name and dtype in the query's order; NULL in a float column is NaN.

    Takes the driver's own rows: SQLAlchemy's would treble the time.
    """
    cursor: Any = connection.execute(query).cursor
    parts: list[list[np.ndarray]] = [[np.zeros(0, kind)] for kind in kinds.values()]
    while found := cursor.fetchmany(_CHUNK):
        for part, column, kind in zip(parts, zip(*found), kinds.values()):
            part.append(np.fromiter(column, kind, len(column)) if kind is object else np.array(column, kind))
    return {name: np.concatenate(part) for name, part in zip(kinds, parts)}
