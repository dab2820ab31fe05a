"""A link that is cut between a worker and its database, in network namespaces: nothing is lost, nobody is twice."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dissect.cli.main import main
from dissect.store import Store
from dissect.store.ledger import Ledger
from dissect.workspace import Workspace
from tests.dissect.service.link import HERE, Link, cable
from tests.dissect.service.test_postgres_service import found, same
from tests.dissect.service.test_spread import wait_for
from tests.dissect.service.test_worker import place, spec
from tests.dissect.store.postgres import Server, server

__all__ = ["place"]


@pytest.fixture
def link() -> Iterator[Link]:
    with cable() as made:
        yield made


@pytest.fixture
def distant(link: Link) -> Iterator[Server]:
    """A server that the other namespace reaches over the cable."""
    with tempfile.TemporaryDirectory(prefix="dissect-pg-") as folder, server(Path(folder), HERE) as running:
        with psycopg.connect(host=folder, user="dissect", dbname="postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE jobs")
        yield running


def worker(folder: Path, url: str, *prefix: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "dissect.cli.main", "worker", "--workspace", str(folder), "--db", url]
    return subprocess.Popen([*prefix, *command, "--pause", "0.1", "--lease", "3"])


def test_a_link_cut_for_longer_than_the_lease(place: Path, tmp_path: Path, link: Link, distant: Server) -> None:
    quiet, hard = tmp_path / "quiet", tmp_path / "hard"
    request = str(spec(place, tmp_path, shards=12))
    assert main(["submit", request, "--workspace", str(quiet)]) == 0
    assert main(["worker", "--workspace", str(quiet)]) == 0
    url = distant.address.format("jobs")
    assert main(["submit", request, "--workspace", str(hard), "--db", url]) == 0
    over = f"postgresql+psycopg://dissect@{HERE}/jobs"
    cut_off = worker(hard, over, "ip", "netns", "exec", link.name)
    wait_for(lambda: any(hard.glob("cache/*/shards/*.partial")))
    link.put("down")
    here = worker(hard, url)
    assert here.wait(120) == 0  # it takes over what the other holds, and ends the job alone
    assert cut_off.poll() is None
    link.put("up")
    assert cut_off.wait(120) == 0
    assert same(found(Workspace.at(quiet)), found(Workspace.at(hard, url)))
    with Store.open(Workspace.at(hard, url), readonly=True) as store:
        (job,) = Ledger(store, lambda: 0.0).jobs()
    assert (job.state, job.done) == ("finished", 12)
    assert job.attempts >= 13  # more where a shard was held behind the cut


def test_a_short_cut_is_waited_out(place: Path, tmp_path: Path, link: Link, distant: Server) -> None:
    quiet, hard = tmp_path / "quiet", tmp_path / "hard"
    request = str(spec(place, tmp_path, shards=12))
    assert main(["submit", request, "--workspace", str(quiet)]) == 0
    assert main(["worker", "--workspace", str(quiet)]) == 0
    url = distant.address.format("jobs")
    assert main(["submit", request, "--workspace", str(hard), "--db", url]) == 0
    alone = worker(hard, f"postgresql+psycopg://dissect@{HERE}/jobs", "ip", "netns", "exec", link.name)
    wait_for(lambda: any(hard.glob("cache/*/shards/*.partial")))
    for _ in range(3):
        link.put("down")
        assert alone.poll() is None
        subprocess.run(["sleep", "0.7"], check=True)
        link.put("up")
        subprocess.run(["sleep", "0.5"], check=True)
    assert alone.wait(120) == 0
    assert same(found(Workspace.at(quiet)), found(Workspace.at(hard, url)))
