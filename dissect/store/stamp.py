"""What tells two states of a database apart without reading it."""

import hashlib
import os

from sqlalchemy import select

from dissect.store import tables
from dissect.store.store import Store


def stamp(store: Store) -> str:
    """Text that changes with every commit to a SQLite file, and with every run that begins or ends on a server."""
    if store.engine.dialect.name != "sqlite":
        columns = tables.runs.c
        query = select(columns.id, columns.name, columns.state, columns.finished_at).order_by(columns.id)
        with store.reading() as connection:
            return hashlib.sha256(repr(connection.execute(query).all()).encode()).hexdigest()
    path = str(store.url.database)
    with open(path, "rb") as file:
        file.seek(24)  # the change counter in SQLite's header: one up with every transaction outside of WAL
        counter = file.read(4).hex()
        found = os.fstat(file.fileno())
    parts = [counter, str(found.st_ino), str(found.st_size), str(found.st_mtime_ns)]
    try:
        wal = os.stat(path + "-wal")
        parts += [str(wal.st_size), str(wal.st_mtime_ns)]
    except FileNotFoundError:
        pass
    return ".".join(parts)
