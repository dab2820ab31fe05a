"""Many at the ledger at once: writers, those who come back too late, clocks that jump, a database that is held."""

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from multiprocessing.connection import Connection
from pathlib import Path

from dissect.store import Store
from dissect.store.ledger import ATTEMPTS, Lease, Ledger
from dissect.workspace import Workspace
from tests.dissect.service import test_ledger
from tests.dissect.store import makers
from tests.torture.place import Place, Tally, begin, end, result


def claims(folder: Path, count: int) -> Tally:
    """Every shard is committed once, whoever races for it."""
    committed, wrong = test_ledger.claims(Workspace.at(folder), max(1, count // 64), 8)
    with sqlite3.connect(folder / "dissect.sqlite") as db:
        sound = db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return Tally(committed, (committed - wrong) * sound)


def zombies(folder: Path, count: int) -> Tally:
    """A process claims a shard and is stopped past its lease; another one commits; it goes on and commits as well."""
    context = multiprocessing.get_context("spawn")
    with makers.open_store(folder) as store:
        ledger, tally = Ledger(store, time.time), Tally()
        for number in range(-(-count // 50)):
            test_ledger.submit(ledger, f"run-{number}", 50)
        here, there = context.Pipe()
        zombie = context.Process(target=_zombie, args=(str(folder), there))
        zombie.start()
        assert zombie.pid is not None
        for _ in range(count):
            here.send("claim")
            number, token = here.recv()
            os.kill(zombie.pid, signal.SIGSTOP)
            time.sleep(0.06)  # its lease of 0.05 s
            other = ledger.claim("other", 60, "1")
            assert other is not None
            took_over = (other.number, other.token) == (number, token + 1)
            kept = ledger.commit(other, "other.partial")
            os.kill(zombie.pid, signal.SIGCONT)
            here.send("come back")
            tally.count(took_over and kept and not any(here.recv()))
        here.send("end")
        zombie.join()
    return tally


def _zombie(folder: str, pipe: Connection) -> None:
    with Store.open(folder) as store:
        ledger = Ledger(store, time.time)
        while pipe.recv() != "end":
            lease = ledger.claim("zombie", 0.05, "1")
            assert lease is not None
            pipe.send((lease.number, lease.token))
            pipe.recv()
            late = [ledger.renew(lease, 60), ledger.fail(lease, "x", 0), ledger.exclude(lease, 1, "x")]
            pipe.send([*late, ledger.commit(lease, "zombie.partial"), ledger.give_back(lease)])


def clocks(folder: Path, count: int) -> Tally:
    """Histories of random steps under a clock that jumps by days in both directions: nobody commits what another one
    holds or has committed, and the job ends."""
    tally = Tally()
    for seed in range(count):
        with makers.open_store(folder / f"{seed}") as store:
            tally.count(_history(store, random.Random(seed)))
    return tally


def _history(store: Store, chance: random.Random) -> bool:
    clock = test_ledger.Clock()
    ledger, held, token = Ledger(store, clock), list[Lease](), dict[int, int]()
    committed: list[int] = []
    test_ledger.submit(ledger, count=4)
    for _ in range(60):
        clock.now += chance.choice((0.1, 1, 30, 61, 86_400, -30, -86_400))
        lease = chance.choice(held) if held else None
        step = chance.choice(("claim", "claim", "renew", "commit", "fail", "give back"))
        if step == "claim" or lease is None:
            found = ledger.claim("w", 60, "1")
            if found is not None:
                if found.token <= token.get(found.number, 0) or found.number in committed:
                    return False
                token[found.number] = found.token
                held.append(found)
            continue
        first = lease.token == token[lease.number] and lease.number not in committed
        if step == "renew" and ledger.renew(lease, 60) and not first:
            return False
        if step == "give back" and ledger.give_back(lease):
            held.remove(lease)
        if step == "fail" and lease.attempts < ATTEMPTS and ledger.fail(lease, "x", 1):
            held.remove(lease)
        if step == "commit" and ledger.commit(lease, "p"):
            if not first:
                return False
            committed.append(lease.number)
    for _ in range(20):
        clock.now += 200_000
        lease = ledger.claim("w", 60, "1")
        if lease is not None and ledger.commit(lease, "p"):
            committed.append(lease.number)
    return [job.state for job in ledger.jobs()] == ["finished"] and sorted(committed) == list(range(5))


def storms(folder: Path, count: int) -> Tally:
    """The database is locked again and again, for up to three seconds, while a worker is at it."""
    place, tally, chance = Place(folder / "place"), Tally(), random.Random(3)
    expected, number = place.quiet(), 0
    while tally.injected < count:
        workspace, locks = folder / f"w{number}", 0
        number += 1
        place.submit(workspace, 4)
        worker = begin(place.worker(workspace, "--lease", "30"))
        with sqlite3.connect(workspace / "dissect.sqlite", timeout=30, isolation_level=None) as db:
            while os.waitpid(worker, os.WNOHANG)[0] == 0:
                db.execute(chance.choice(("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE")))
                locks += 1
                time.sleep(chance.choice((0.01, 0.1, 1.0, 3.0)))
                db.execute("ROLLBACK")
                time.sleep(chance.uniform(0, 0.2))
        tally.count(result(workspace) == expected, min(locks, count - tally.injected))
    return tally


def queue(folder: Path, count: int) -> Tally:
    """So many jobs wait: the next one is found as fast as the first, and the most urgent one comes first."""
    with makers.open_store(folder) as store:
        ledger = Ledger(store, time.time)
        took = [_claim_seconds(ledger)]
        for number in range(count):
            test_ledger.submit(ledger, f"run-{number}", 2)
        took.append(_claim_seconds(ledger))
        urgent = test_ledger.submit(ledger, "urgent", 1, priority=9)
        lease = ledger.claim("a", 60, "1")
        begun = time.perf_counter()
        known = len(ledger.jobs())
        listed = time.perf_counter() - begun
    first = lease is not None and lease.job_id == urgent
    seen = f"a claim takes {1000 * took[0]:.0f} ms, then {1000 * took[1]:.0f} ms; listing them {listed:.1f} s"
    return Tally(count, count * (first and known == count + 2 and took[1] < 0.1), seen)


def _claim_seconds(ledger: Ledger) -> float:
    """CPU and disk seconds of the best of nine claims."""
    test_ledger.submit(ledger, "first", 16)
    found = []
    for _ in range(9):
        begun = time.perf_counter()
        lease = ledger.claim("a", 60, "1")
        found.append(time.perf_counter() - begun)
        assert lease is not None
        ledger.give_back(lease)
    return min(found)


def stopped_worker(folder: Path, count: int) -> Tally:
    """A worker is stopped past its lease with all that it started; another one does its shard; it goes on."""
    place, tally, number = Place(folder / "place"), Tally(), 0
    expected = place.quiet()
    while tally.injected < count:
        workspace = folder / f"w{number}"
        number += 1
        place.submit(workspace, 3)
        first = begin(place.worker(workspace))
        time.sleep(2.6)
        _signal(first, signal.SIGSTOP)
        second = begin(place.worker(workspace))
        time.sleep(4)
        _signal(first, signal.SIGCONT)
        codes = end(first), end(second)
        tally.count(codes == (0, 0) and result(workspace) == expected)
    return tally


def _signal(worker: int, what: int) -> None:
    """To a process and everything below it."""
    try:
        below = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
        os.kill(worker, what)
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in below:
        _signal(int(child), what)
