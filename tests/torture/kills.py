"""Processes killed at random moments of a run."""

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from PIL import Image

import broden
from tests.dissect.service.test_worker import POISON
from tests.torture.place import NAME, Place, Tally, begin, end, result, run

SHARDS = 8


def kill_run(folder: Path, count: int) -> Tally:
    """`dissect run`, killed up to four times, then left to end."""
    place, tally, chance = Place(folder / "place"), Tally(), random.Random(0)
    expected, number = place.quiet(), 0
    begun = time.monotonic()
    run(place.command(folder / "timed"))
    length = time.monotonic() - begun
    while tally.injected < count:
        workspace, kills = folder / f"w{number}", 0
        number += 1
        for _ in range(min(4, count - tally.injected)):
            process = begin(place.command(workspace))
            time.sleep(length * chance.uniform(0.02, 1.0))
            os.kill(process, signal.SIGKILL)
            kills += end(process) == -signal.SIGKILL
        tally.count(run(place.command(workspace)) == 0 and result(workspace) == expected, kills)
    return tally


def kill_worker(folder: Path, count: int) -> Tally:
    """Workers killed one after another: at most one shard is done again for each."""
    return _kill(folder, count, lambda worker: worker)


def kill_child(folder: Path, count: int) -> Tally:
    """The process that measures a shard: a failed attempt."""

    return _kill(folder, count, _youngest)


def _youngest(worker: int) -> int | None:
    """The process that measures: a child of that which the worker has forked from."""
    parents = {worker}
    for _ in range(2):
        parents = {pid for pid, parent in _processes() if parent in parents}
    return max(parents, default=None)


def _processes() -> list[tuple[int, int]]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            found.append((int(status.parent.name), int(status.read_text().rsplit(")", 1)[1].split()[1])))
        except (OSError, IndexError):
            continue
    return found


def _kill(folder: Path, count: int, victim: Callable[[int], int | None]) -> Tally:
    place, tally, chance = Place(folder / "place"), Tally(), random.Random(1)
    expected, number, redone, retried = place.quiet(), 0, 0, 0
    while tally.injected < count:
        workspace, kills = folder / f"w{number}", 0
        number += 1
        place.submit(workspace, SHARDS)
        for _ in range(min(4, count - tally.injected)):
            worker, deadline = begin(place.worker(workspace)), time.monotonic() + 60
            while _youngest(worker) is None and _working(workspace) and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 0.6))
            found = victim(worker)
            try:
                if found is not None:
                    os.kill(found, signal.SIGKILL)
                if found != worker:
                    time.sleep(0.3)
                    os.kill(worker, signal.SIGTERM)
            except ProcessLookupError:
                found = None
            code = end(worker)
            # 1: it was the third at one shard, which fails the job, and the worker ended before it could be told to
            kills += found is not None and code in (-signal.SIGKILL, 128 + signal.SIGTERM, 1)
        ended = run(place.worker(workspace)) == 0
        if _state(workspace) == "failed":  # the same shard met it three times
            retried += 1
            assert run(["retry", NAME, "--workspace", str(workspace)]) == 0
            ended = run(place.worker(workspace)) == 0
        with sqlite3.connect(workspace / "dissect.sqlite") as db:
            texts = [row[0] for row in db.execute("SELECT text FROM events")]
        again = sum(": attempt " in text for text in texts) - sum("given back" in text for text in texts) - SHARDS - 1
        redone += again
        tally.count(ended and result(workspace) == expected and again <= kills, kills)
    tally.seen = f"{redone} shards done again" + f", {retried} jobs failed and were retried" * bool(retried)
    return tally


def _working(workspace: Path) -> bool:
    """Whether the job has not ended."""
    return _state(workspace) in ("queued", "running")


def _state(workspace: Path) -> str:
    with closing(sqlite3.connect(f"file:{workspace / 'dissect.sqlite'}?mode=ro", uri=True, timeout=60)) as db:
        return str(db.execute("SELECT state FROM jobs").fetchone()[0])


def poison(folder: Path, count: int) -> Tally:
    """An image that ends the process is found, set aside and named; the rest of the run ends."""
    tally = Tally()
    for number in range(count):
        place = Place(folder / f"place{number}", "poison", POISON)
        position = (number * 17 + 3) % 60
        path = place.folder / "data" / "images" / broden.open(place.folder / "data").rows[position].image
        Image.new("RGB", Image.open(path).size, (255, 255, 255)).save(path)
        workspace = folder / f"w{number}"
        place.submit(workspace, 2, ("inner.0",))
        code = run(place.worker(workspace))
        with sqlite3.connect(workspace / "dissect.sqlite") as db:
            found = db.execute("SELECT position FROM excluded").fetchall()
        tally.count(code == 3 and bool(result(workspace)) and found == [(position,)])
    return tally
