"""The databases that faults are injected beside: a file of SQLite's, or a throw-away PostgreSQL server."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dissect.store import Store
from dissect.workspace import Workspace
from tests.dissect.test_cli_run import tree
from tests.torture.place import NAME, result


class Base(Protocol):
    """Where the rows of a workspace lie."""

    def url(self, workspace: Path) -> str | None:
        """The database's URL, made when first asked for; None for the workspace's own file."""

    def result(self, workspace: Path) -> str:
        """See `place.result`."""

    def forget(self, workspace: Path) -> None:
        """Remove what is not in the workspace."""


class File:
    """SQLite, in the workspace."""

    def url(self, workspace: Path) -> str | None:
        return None

    def result(self, workspace: Path) -> str:
        return result(workspace)

    def forget(self, workspace: Path) -> None:
        pass


class Postgres:
    """Databases of one server, named after their workspaces."""

    def __init__(self, server: Any) -> None:
        self.server, self._known = server, set[str]()

    def url(self, workspace: Path) -> str | None:
        if workspace.name not in self._known:
            self._execute(f'CREATE DATABASE "{workspace.name}"')
            self._known.add(workspace.name)
        found: str = self.server.address.format(workspace.name)
        return found

    def result(self, workspace: Path) -> str:
        with Store.open(Workspace.at(workspace, self.url(workspace)), readonly=True) as store:
            runs = store.runs()
            if [run.state for run in runs] != ["finished"]:
                return ""
            found: list[Any] = [runs[0].images, store.concepts(runs[0].id)]
            for layer in store.layers(runs[0].id):
                for table in (store.units(layer), store.scores(layer), store.exemplars(layer)):
                    found += [_told(column) for column in vars(table).values()]
                found += [_told(store.unit_areas(layer)), _told(np.asarray(store.counts(layer)))]
        pages = tree(workspace / "reports" / NAME)
        return hashlib.sha256(repr((found, sorted(pages.items()))).encode()).hexdigest()

    def forget(self, workspace: Path) -> None:
        self._execute(f'DROP DATABASE IF EXISTS "{workspace.name}" WITH (FORCE)')
        self._known.discard(workspace.name)

    def _execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(
            host=str(self.server.folder), user="dissect", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement.encode())


def _told(column: Any) -> object:
    return column.tolist() if isinstance(column, np.ndarray) else column


@contextmanager
def base(postgres: bool) -> Iterator[Base]:
    """Of either kind; skips, as a test would, where there is no server."""
    if not postgres:
        yield File()
        return
    with on_postgres() as rows:
        yield rows


@contextmanager
def on_postgres(listen: str = "") -> Iterator[Postgres]:
    """A server that listens on an address of the network too."""
    from tests.dissect.store.postgres import server

    with tempfile.TemporaryDirectory(prefix="dissect-pg-") as folder, server(Path(folder), listen) as running:
        yield Postgres(running)
