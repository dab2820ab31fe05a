"""Many small jobs in a row through one worker: what it holds, and what they leave in the database."""

import os
import signal
import sqlite3
import time
from pathlib import Path

import numpy as np

from tests.torture.place import Place, Tally, begin, end, run

_PAGE = os.sysconf("SC_PAGE_SIZE")


def soak(folder: Path, count: int) -> Tally:
    """Every job ends; memory and descriptors of the worker, and of the process that its children are forked from, do
    not grow with their number; the database grows by the same for each."""
    place, workspace = Place(folder / "place"), folder / "w"
    workspace.mkdir()
    spec = [f'[[run]]\nmodel = "{place.folder / "net.py"}:build"\ntrust = "{place.digest}"\nlayers = ["0"]\n'
            f'data = "{place.folder / "data"}"\nquantile = {0.02 + 1e-6 * number!r}\nreport = false\nbatch_size = 8\n'
            for number in range(count)]  # fmt: skip
    (workspace / "spec.toml").write_text("shards = 1\n" + "".join(spec))
    assert run(["submit", str(workspace / "spec.toml"), "--workspace", str(workspace)]) == 0
    worker = begin(place.worker(workspace, "--lease", "30"))
    seen: list[tuple[int, ...]] = []
    ended, done = False, 0
    while not ended and done < count:
        time.sleep(0.25)
        ended = os.waitpid(worker, os.WNOHANG)[0] != 0  # as it does when the queue is empty
        done, failed = _progress(workspace)
        if failed:
            break
        family = [] if ended else [worker, *_children(worker)]
        if len(family) > 1 and (not seen or done > seen[-1][0]):
            held = [_resident(pid) for pid in family], [_descriptors(pid) for pid in family]
            seen.append((done, *held[0], *held[1], (workspace / "dissect.sqlite").stat().st_size))
    if not ended:
        os.kill(worker, signal.SIGTERM)
        end(worker)
    table = np.array([row for row in seen if len(row) == len(seen[-1])], float)
    told = _told(table, (len(seen[-1]) - 2) // 2) if done >= 100 else "too few jobs for slopes"
    return Tally(count, done, told)


def _told(table: np.ndarray, processes: int) -> str:
    """Slopes over all but the first tenth of the jobs, and how well the first fifth foretells the database."""
    rest = table[table[:, 0] > table[-1, 0] / 10]
    slopes = [np.polyfit(rest[:, 0], rest[:, column], 1)[0] for column in range(1, 1 + 2 * processes)]
    fifth = table[table[:, 0] <= table[-1, 0] / 5]
    each, start = np.polyfit(fifth[:, 0], fifth[:, -1], 1)
    foretold = start + each * table[-1, 0]
    memory = ", ".join(f"{slope:+.0f}" for slope in slopes[:processes])
    descriptors = ", ".join(f"{slope:+.4f}" for slope in slopes[processes:])
    names = "worker, tracker, forking process" if processes == 3 else "worker, then its children"
    return (
        f"bytes of memory a job {memory} ({names}), descriptors a job {descriptors}; "
        f"database {table[-1, -1]:,.0f} bytes, {each:,.0f} a job, {table[-1, -1] / foretold - 1:+.1%} beside what the "
        "first fifth foretold"
    )


def _progress(workspace: Path) -> tuple[int, int]:
    with sqlite3.connect(f"file:{workspace / 'dissect.sqlite'}?mode=ro", uri=True, timeout=60) as db:
        states = dict(db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
    return states.get("finished", 0), states.get("failed", 0)


def _children(worker: int) -> list[int]:
    """The processes that live as long as the worker, not those that come and go under them."""
    try:
        return sorted(map(int, Path(f"/proc/{worker}/task/{worker}/children").read_text().split()))
    except FileNotFoundError:
        return []


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
