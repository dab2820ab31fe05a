"""Connections with the settings that results are worth.

SQLite: rollback journal, synchronous FULL, foreign keys, ten seconds of patience. A file that somebody put into WAL
mode is put back unless this SQLite carries the fix of the WAL-reset bug. Transactions are begun explicitly, those of
a writer IMMEDIATE, so that two writers queue instead of failing half-way.
"""

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine, NullPool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from dissect.errors import SpecError

BUSY_SECONDS = 10
# Pages that a writer may hold before it must lock readers out to spill them; memory is taken as needed.
WRITE_CACHE_KIB = 256 << 10
_TIMEOUTS = {
    "connect_timeout": 10, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3,
    "tcp_user_timeout": 10_000, "options": "-c idle_in_transaction_session_timeout=30000",
}  # fmt: skip
"""Of a PostgreSQL connection; the last two are milliseconds. Behind a cut link TCP alone waits a quarter of an hour,
and the server would keep locked what the transaction of the one who was cut off had locked."""
_WAL_FIXED = (3, 51, 3)
_WAL_BACKPORTS = {(3, 44): 6, (3, 50): 7}


def wal_is_safe(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    """Whether this SQLite has the WAL-reset bug fixed: 3.44.6 and later of 3.44, 3.50.7 and later of 3.50, 3.51.3."""
    patch = _WAL_BACKPORTS.get(version[:2])
    return version >= _WAL_FIXED or (patch is not None and version[2] >= patch)


def parse(url: str) -> URL:
    """The URL of a database; what follows sqlite:/// is a path as it stands, ? and % included. Raises SpecError."""
    if url.startswith("sqlite:///"):
        return URL.create("sqlite", database=url.removeprefix("sqlite:///"))
    try:
        return make_url(url)
    except ArgumentError as error:
        raise SpecError(f"{url!r} is no database URL: expected sqlite:///FILE or postgresql+psycopg://…") from error


def shown(url: URL) -> str:
    """How messages name a database: the file, or the URL without its password."""
    if url.get_backend_name() == "sqlite":
        return url.database or ":memory:"
    return url.render_as_string(hide_password=True)


def connect_sqlite(path: str, readonly: bool) -> sqlite3.Connection:
    """A bare connection without implicit transactions; a reader cannot write by any statement."""
    mode = "ro" if readonly else "rwc"
    target = f"file:{quote(str(Path(path).absolute()))}?mode={mode}"
    connection = sqlite3.connect(target, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys=ON")
    if readonly:
        connection.execute("PRAGMA query_only=ON")
        return connection
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal" or not wal_is_safe():
        connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA cache_size=-{WRITE_CACHE_KIB}")
    return connection


def open_engine(url: URL, readonly: bool) -> Engine:
    """An engine without a pool (safe over fork; opening a file is cheap)."""
    if url.get_backend_name() != "sqlite":
        options: dict[str, Any] = {"postgresql_readonly": True} if readonly else {}
        unless = {name: value for name, value in _TIMEOUTS.items() if name not in url.query}
        return create_engine(url, poolclass=NullPool, execution_options=options, connect_args=unless)
    path = url.database
    if not path:
        raise SpecError(f"{shown(url)}: a database in memory would be lost: expected sqlite:///FILE")
    engine = create_engine("sqlite://", creator=lambda: connect_sqlite(path, readonly), poolclass=NullPool)
    begin = "BEGIN" if readonly else "BEGIN IMMEDIATE"
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine
