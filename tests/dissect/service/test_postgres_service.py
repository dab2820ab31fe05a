"""Jobs on PostgreSQL: workers share it, it crashes under them, and the rows are those of SQLite."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from dissect.cli.main import main
from dissect.store import Store
from dissect.workspace import Workspace
from tests.dissect.service.test_spread import wait_for
from tests.dissect.service.test_worker import place, spec
from tests.dissect.store.postgres import Server, server

__all__ = ["place"]

CRASHES = 10


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that a test may crash."""
    with tempfile.TemporaryDirectory(prefix="dissect-pg-") as folder, server(Path(folder)) as found:
        with psycopg.connect(host=folder, user="dissect", dbname="postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE jobs")
        yield found


def found(workspace: Workspace) -> list[Any]:
    """Every column of the results."""
    with Store.open(workspace, readonly=True) as store:
        run = store.get_run("same")
        columns: list[Any] = [run.state, run.images, store.concepts(run.id)]
        for layer in store.layers(run.id):
            for table in (store.units(layer), store.scores(layer), store.exemplars(layer)):
                columns += [column for column in vars(table).values() if column is not None]
            columns += [store.unit_areas(layer), np.asarray(store.counts(layer))]
    return columns


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, b, equal_nan=a.dtype != object) if isinstance(a, np.ndarray) else a == b
        for a, b in zip(one, other)
    )


def workers(folder: Path, url: str, count: int) -> list[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "dissect.cli.main", "worker", "--workspace", str(folder), "--db", url]
    return [subprocess.Popen([*command, "--pause", "0.1", "--lease", "3"]) for _ in range(count)]


def test_a_server_that_crashes_ten_times_costs_nothing(place: Path, tmp_path: Path, own_server: Server) -> None:
    quiet, hard = tmp_path / "quiet", tmp_path / "hard"
    request = str(spec(place, tmp_path, shards=12))
    assert main(["submit", request, "--workspace", str(quiet)]) == 0
    assert main(["worker", "--workspace", str(quiet)]) == 0
    url = own_server.address.format("jobs")
    assert main(["submit", request, "--workspace", str(hard), "--db", url]) == 0
    running = workers(hard, url, 2)
    wait_for(lambda: any(hard.glob("cache/*/shards/*.partial")))
    for _ in range(CRASHES):
        assert any(worker.poll() is None for worker in running)
        own_server.stop(signal.SIGQUIT)
        time.sleep(0.1)
        own_server.start()
        time.sleep(0.3)
    assert [worker.wait(180) for worker in running] == [0, 0]
    assert same(found(Workspace.at(quiet)), found(Workspace.at(hard, url)))
