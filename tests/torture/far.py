"""What is on other machines: a database server that is restarted, a link that is cut, a Ray cluster that dies."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from _pytest.outcomes import Skipped

from dissect.errors import RetryLater
from tests.dissect.service import nodes
from tests.dissect.service.link import HERE, cable
from tests.dissect.test_cli_run import NET
from tests.torture.bases import Postgres, on_postgres
from tests.torture.place import Place, Tally, begin, end, result, run

SLOW = (
    NET
    + '''

def slow():
    """The network of `build`, behind a pause."""
    import time

    class Slow(nn.Module):
        def forward(self, x):
            time.sleep(0.25)
            return x

    return nn.Sequential(Slow(), *build())
'''
)
SHARDS, LEASE, RESTARTS = 12, 3.0, 10


def _or_why(inject: Callable[[Path, int], Tally]) -> Callable[[Path, int], Tally]:
    def done(folder: Path, count: int) -> Tally:
        try:
            return inject(folder, count)
        except Skipped as reason:
            return Tally(seen=f"not done: {reason}")

    return done


@_or_why
def servers(folder: Path, count: int) -> Tally:
    """A PostgreSQL server that crashes, ten times a job, under two workers."""
    tally, number = Tally(), 0
    with on_postgres() as rows:
        place, expected = _place(folder, rows)
        while tally.injected < count:
            workspace, crashes = folder / f"w{number}", 0
            number += 1
            more = _queued(place, workspace, rows)
            running = [begin(place.worker(workspace, *more)) for _ in range(2)]
            chance = random.Random(number)
            while crashes < min(RESTARTS, count - tally.injected):
                time.sleep(chance.uniform(0.1, 0.6))
                rows.server.stop(signal.SIGQUIT)
                time.sleep(chance.uniform(0, 0.3))
                rows.server.start()
                crashes += 1
            ended = [end(worker) for worker in running] == [0, 0]
            tally.count(ended and rows.result(workspace) == expected, crashes)
    return tally


@_or_why
def cuts(folder: Path, count: int) -> Tally:
    """The link between a worker and the database is cut for up to twice the lease, while another worker goes on."""
    tally, longest, number, chance = Tally(), 0.0, 0, random.Random(5)
    with cable() as link, on_postgres(HERE) as rows:
        place, expected = _place(folder, rows)
        while tally.injected < count:
            workspace = folder / f"w{number}"
            number += 1
            more = _queued(place, workspace, rows)
            over = ["--db", f"postgresql+psycopg://dissect@{HERE}/{workspace.name}", *more[2:]]
            far = begin(place.worker(workspace, *over), lambda: _enter(link.name))
            time.sleep(chance.uniform(0.5, 2))
            near = begin(place.worker(workspace, *more))
            time.sleep(chance.uniform(0, 0.5))
            link.put("down")
            time.sleep(chance.uniform(0.2, 2 * LEASE))
            link.put("up")
            ended = [end(far), end(near)] == [0, 0]
            pause = _longest_pause(rows, workspace)
            longest = max(longest, pause)
            tally.count(ended and rows.result(workspace) == expected and pause <= LEASE + 5)
    tally.seen = f"no end of a shard for {longest:.1f} s at the most, at a lease of {LEASE:.0f} s"
    return tally


def _place(folder: Path, rows: Postgres) -> tuple[Place, str]:
    """With what a run that nothing disturbs leaves on a server."""
    place, quiet = Place(folder / "place", "slow", SLOW), folder / "quiet"
    assert run(place.command(quiet, "--db", str(rows.url(quiet)))) == 0
    return place, rows.result(quiet)


def _queued(place: Place, workspace: Path, rows: Postgres) -> list[str]:
    """A job; what its workers are told beside their workspace."""
    to = ["--db", str(rows.url(workspace))]
    place.submit(workspace, SHARDS, more=to)
    return [*to, "--lease", str(LEASE)]


def _enter(namespace: str) -> None:
    with open(f"/var/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


def _longest_pause(rows: Postgres, workspace: Path) -> float:
    """Seconds between two ends of shards, one after the other."""
    with closing(psycopg.connect(host=str(rows.server.folder), user="dissect", dbname=workspace.name)) as connection:
        found = connection.execute(
            "SELECT extract(epoch FROM at::timestamptz) FROM events WHERE text LIKE '%: done in %' ORDER BY at"
        ).fetchall()
    ends = [float(at) for (at,) in found]
    return max(later - earlier for earlier, later in zip(ends, ends[1:]))


class _Runs:
    """Runs of one place on a cluster, and when to disturb them: at a random moment of what one takes."""

    def __init__(self, folder: Path, cluster: Any) -> None:
        self.folder, self.cluster = folder, cluster
        self.place = Place(folder / "place", "slow", SLOW)
        self._expected, self._chance = self.place.quiet(), random.Random(6)
        begun = time.monotonic()
        assert self.drive(folder / "timed").wait() == 0
        self._length = time.monotonic() - begun

    def drive(self, workspace: Path, cluster: Any = None) -> "subprocess.Popen[bytes]":
        """The command begins, on this cluster or another."""
        address = (cluster or self.cluster).address
        command = self.place.command(workspace, "--engine", "ray", "--ray-address", address)
        return subprocess.Popen(
            [sys.executable, "-m", "dissect.cli.main", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def pause(self) -> None:
        time.sleep(self._length * self._chance.uniform(0.2, 1.0))

    def ends_well(self, driver: "subprocess.Popen[bytes]", workspace: Path) -> bool:
        return driver.wait() == 0 and result(workspace) == self._expected


@_or_why
def ray_nodes(folder: Path, count: int) -> Tally:
    """A node of a Ray cluster is killed; the driver ends as if it had not been."""
    tally = Tally()
    with nodes.cluster() as cluster:
        runs = _Runs(folder, cluster)
        for number in range(count):
            doomed, workspace = nodes.add_node(cluster), folder / f"w{number}"
            driver = runs.drive(workspace)
            runs.pause()
            cluster.remove_node(doomed, allow_graceful=False)
            tally.count(runs.ends_well(driver, workspace))
    return tally


@_or_why
def ray_drivers(folder: Path, count: int) -> Tally:
    """The command that drives a Ray cluster is killed, and given again."""
    tally = Tally()
    with nodes.cluster() as cluster:
        runs = _Runs(folder, cluster)
        for number in range(count):
            workspace = folder / f"w{number}"
            driver = runs.drive(workspace)
            runs.pause()
            driver.kill()
            driver.wait()
            tally.count(runs.ends_well(runs.drive(workspace), workspace))
    return tally


@_or_why
def ray_heads(folder: Path, count: int) -> Tally:
    """The head of a Ray cluster is killed: the command ends and says so, and ends the run on another cluster."""
    tally, codes = Tally(), dict[int, int]()
    with nodes.cluster() as other:
        runs = _Runs(folder, other)
        for number in range(count):
            workspace = folder / f"w{number}"
            with nodes.cluster() as doomed:
                driver = runs.drive(workspace, doomed)
                runs.pause()
                doomed.remove_node(doomed.head_node, allow_graceful=False)
                code = driver.wait()
            codes[code] = codes.get(code, 0) + 1
            tally.count(code in (0, RetryLater.exit_code) and runs.ends_well(runs.drive(workspace), workspace))
    tally.seen = ", ".join(f"exit code {code}: {times}" for code, times in sorted(codes.items()))
    return tally
