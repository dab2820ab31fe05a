"""Somebody's own SQL, which can read and nothing else, for a limited time and a limited number of rows.

SQLite: a read-only connection with query_only, an authoriser that allows SELECT, column reads and functions, and a
progress handler that looks at the clock. A single instruction cannot be interrupted, so strings are kept short and
the functions that could work on them for long are replaced by linear ones. PostgreSQL: one prepared statement in a
read-only transaction with statement_timeout.
"""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DBAPIError

from dissect.errors import DissectError, RetryLater, SpecError, TooSlow
from dissect.store import engine
from dissect.store.deadline import STEPS
from dissect.store.store import Store

SECONDS = 1.0
ROWS = 1_000
_LENGTH = 1_000_000  # longest string or blob in bytes
_TRIMMED = 200  # characters that trim takes off
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_REFUSED = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "randomblob", "zeroblob", "sqlite_log"}
_BEGINNINGS = ("select", "with", "values")


@dataclass(frozen=True)
class Table:
    """Columns (names made distinct) and rows of a query; `more` says that rows were left out."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    more: bool


def read_only_sql(store: Store, statement: str, seconds: float = SECONDS, rows: int = ROWS) -> Table:
    """Run one SELECT. Raises SpecError (no SELECT, several statements, a write, wrong SQL), RetryLater (time is up)."""
    if seconds <= 0 or rows < 1:
        raise SpecError(f"limits of {seconds} s and {rows} rows leave nothing to do: expected more than 0")
    if "\0" in statement:
        raise SpecError("the statement holds a NUL character")
    if not _bare(statement).lower().startswith(_BEGINNINGS):
        raise SpecError("only SELECT (or WITH … SELECT, VALUES) can be asked: the database is read-only here")
    if store.engine.dialect.name == "sqlite":
        return _on_sqlite(str(store.url.database), statement, seconds, rows)
    return _on_server(store, statement, seconds, rows)


def _bare(statement: str) -> str:
    """The statement without the comments and parentheses before its first word."""
    text = statement.lstrip().lstrip("(").lstrip()
    while text.startswith(("--", "/*")):
        _, _, text = text.partition("\n") if text.startswith("--") else text.partition("*/")
        text = text.lstrip()
    return text


def _too_slow(seconds: float) -> TooSlow:
    return TooSlow(f"the query was stopped after {seconds:g} s: narrow it, or raise the limit with --timeout")


def _on_sqlite(path: str, statement: str, seconds: float, rows: int) -> Table:
    denied: list[str] = []
    try:
        connection = engine.connect_sqlite(path, readonly=True)
    except sqlite3.OperationalError as error:
        raise SpecError(f"database {path} cannot be opened: {error}") from error
    try:
        _harden(connection, denied)
        end = time.monotonic() + seconds
        connection.set_progress_handler(lambda: int(time.monotonic() > end), STEPS)
        cursor = connection.execute(statement)
        found = cursor.fetchmany(rows + 1)
        names = [item[0] for item in cursor.description or ()]
        return Table(_distinct(names), found[:rows], len(found) > rows)
    except sqlite3.Error as error:
        text = str(error)
        if "interrupted" in text:
            raise _too_slow(seconds) from error
        if denied:
            raise SpecError(f"refused: {denied[0]} (only reading is possible here)") from error
        if "locked" in text:
            raise RetryLater(f"database {path} is in use by another process: try again") from error
        raise SpecError(f"SQL: {text}") from error
    finally:
        connection.close()


def _harden(connection: sqlite3.Connection, denied: list[str]) -> None:
    """Take from a connection everything but reading; `denied` collects what was refused."""

    def authorise(action: int, one: str | None, two: str | None, *_: str | None) -> int:
        if action in _ALLOWED and (two or "").lower() not in _REFUSED:
            return sqlite3.SQLITE_OK
        denied.append(f"{_ACTIONS.get(action, 'this statement')} {two or one or ''}".strip())
        return sqlite3.SQLITE_DENY

    connection.execute("PRAGMA trusted_schema=OFF")
    for name, arity, function in (
        ("instr", 2, _instr), ("replace", 3, _replace), ("trim", 1, _trim), ("trim", 2, _trim),
        ("ltrim", 1, _ltrim), ("ltrim", 2, _ltrim), ("rtrim", 1, _rtrim), ("rtrim", 2, _rtrim),
    ):  # fmt: skip
        connection.create_function(name, arity, function, deterministic=True)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LENGTH)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 100_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0)
    connection.set_authorizer(authorise)


_ACTIONS = {
    sqlite3.SQLITE_ATTACH: "ATTACH", sqlite3.SQLITE_DETACH: "DETACH", sqlite3.SQLITE_PRAGMA: "PRAGMA",
    sqlite3.SQLITE_INSERT: "INSERT into", sqlite3.SQLITE_UPDATE: "UPDATE of", sqlite3.SQLITE_DELETE: "DELETE from",
    sqlite3.SQLITE_FUNCTION: "the function", sqlite3.SQLITE_TRANSACTION: "a transaction:",
}  # fmt: skip


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _instr(text: Any, part: Any) -> int | None:
    return None if text is None or part is None else _text(text).find(_text(part)) + 1


def _replace(text: Any, old: Any, new: Any) -> str | None:
    if text is None or old is None or new is None:
        return None
    whole, gone, come = _text(text), _text(old), _text(new)
    if not gone:
        return whole
    if len(whole) + whole.count(gone) * (len(come) - len(gone)) > _LENGTH:
        raise ValueError("string too long")
    return whole.replace(gone, come)


def _characters(value: Any) -> str:
    """The distinct characters to trim: few, because the time is text times characters."""
    found = "".join(set(_text(value)))
    if len(found) > _TRIMMED:
        raise ValueError("too many characters to trim")
    return found


def _trim(text: Any, characters: Any = " ") -> str | None:
    return None if text is None or characters is None else _text(text).strip(_characters(characters))


def _ltrim(text: Any, characters: Any = " ") -> str | None:
    return None if text is None or characters is None else _text(text).lstrip(_characters(characters))


def _rtrim(text: Any, characters: Any = " ") -> str | None:
    return None if text is None or characters is None else _text(text).rstrip(_characters(characters))


def _on_server(store: Store, statement: str, seconds: float, rows: int) -> Table:
    try:
        with store.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            with driver.cursor() as cursor:
                cursor.execute("SET TRANSACTION READ ONLY")
                cursor.execute(f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}")
                cursor.execute(statement, prepare=True)  # prepared: one statement only
                found = cursor.fetchmany(rows + 1)
                names = [item.name for item in cursor.description or ()]
            driver.rollback()
    except DBAPIError as error:
        raise DissectError(f"database {store.where}: {error.orig}") from error
    except Exception as error:
        if not type(error).__module__.startswith("psycopg"):
            raise
        if "statement timeout" in str(error):
            raise _too_slow(seconds) from error
        raise SpecError(f"SQL: {str(error).splitlines()[0]}") from error
    return Table(_distinct(names), found[:rows], len(found) > rows)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names of columns, a second `unit` as unit_2."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return tuple(found)
