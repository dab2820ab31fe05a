"""The ledger under many writers, late zombies, jumping clocks and other releases."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dissect.errors import RetryLater, SpecError
from dissect.store import Store
from dissect.store.ledger import ATTEMPTS, Lease, Ledger
from dissect.workspace import Workspace


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgres"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Workspace:
    """An empty one on either database."""
    return Workspace.at(tmp_path, request.getfixturevalue("postgres_url") if request.param == "postgres" else None)


@pytest.fixture
def ledger(workspace: Workspace, clock: Clock) -> Iterator[Ledger]:
    with Store.open(workspace) as store:
        yield Ledger(store, clock)


def submit(ledger: Ledger, run: str = "r1", count: int = 2, priority: int = 0, version: str = "1") -> int:
    return ledger.submit(run, run, {"model": "demo"}, count, 100, priority, version)[0]


def claim(ledger: Ledger, owner: str = "a") -> Lease:
    lease = ledger.claim(owner, 60, "1")
    assert lease is not None
    return lease


def test_a_job_from_queue_to_end(ledger: Ledger) -> None:
    job = submit(ledger)
    assert ledger.submit("r1", "r1", {}, 2, 100, 0, "1") == (job, False)
    first, second = claim(ledger), claim(ledger)
    assert [(x.kind, x.number, x.count) for x in (first, second)] == [("measure", 0, 2), ("measure", 1, 2)]
    assert ledger.claim("b", 60, "1") is None  # finishing waits for both
    assert ledger.commit(first, "0.partial")
    assert ledger.claim("b", 60, "1") is None
    assert ledger.commit(second, "1.partial")
    last = claim(ledger)
    assert last.kind == "finish"
    assert ledger.jobs()[0].state == "running"
    assert ledger.commit(last, None)
    found = ledger.jobs()[0]
    assert (found.state, found.done, found.shards) == ("finished", 2, 2)
    assert not ledger.commit(last, None)


def test_priorities_then_age(ledger: Ledger) -> None:
    for run, priority in (("old", 0), ("urgent", 5), ("new", 0)):
        submit(ledger, run, 1, priority)
    assert [claim(ledger).run_id for _ in range(3)] == ["urgent", "old", "new"]


def test_zombies_are_fenced_off(ledger: Ledger, clock: Clock) -> None:
    """A hundred times: a lease runs out, another worker takes the shard, and the first one comes back."""
    submit(ledger, count=1)
    for _ in range(100):
        zombie = claim(ledger, "zombie")
        clock.now += 61
        other = claim(ledger, "other")
        assert other.token == zombie.token + 1
        assert not ledger.commit(zombie, "late.partial")
        assert not ledger.renew(zombie, 60)
        assert not ledger.fail(zombie, "late", 0)
        assert not ledger.give_back(zombie)
        assert not ledger.exclude(zombie, 7, "late")
        assert ledger.give_back(other)
    assert ledger.commit(claim(ledger), "0.partial")


def test_renewal_holds_and_clocks_may_jump(ledger: Ledger, clock: Clock) -> None:
    submit(ledger, count=1)
    lease = claim(ledger)
    for _ in range(5):
        clock.now += 50
        assert ledger.renew(lease, 60)
        assert ledger.claim("b", 60, "1") is None
    clock.now -= 100_000  # back: the lease only lasts longer
    assert ledger.claim("b", 60, "1") is None
    assert ledger.renew(lease, 60)
    clock.now += 100_000  # forward: somebody takes over, and only that one counts
    taken = claim(ledger, "b")
    assert not ledger.commit(lease, "x")
    assert ledger.commit(taken, "y")


def test_three_attempts_then_the_job_fails_and_may_be_retried(ledger: Ledger, clock: Clock) -> None:
    job = submit(ledger, count=2)
    done = claim(ledger)
    assert ledger.commit(done, "0.partial")
    for attempt in range(1, ATTEMPTS + 1):
        lease = claim(ledger)
        assert lease.attempts == attempt
        assert ledger.fail(lease, "boom", 30)
        assert ledger.claim("b", 60, "1") is None  # it pauses, or is over
        clock.now += 31
    found = ledger.jobs()[0]
    assert found.state == "failed"
    assert found.error == "shard 1/2 failed 3 times: boom"
    assert ledger.retry(job)
    again = claim(ledger)
    assert (again.number, again.attempts) == (1, 1)  # what was measured stays measured
    assert not ledger.retry(job)


def test_a_job_whose_end_fails_three_times_says_so(ledger: Ledger) -> None:
    submit(ledger, count=1)
    assert ledger.commit(claim(ledger), "0.partial")
    for _ in range(ATTEMPTS):
        assert ledger.fail(claim(ledger), "boom", 0)
    found = ledger.jobs()[0]
    assert (found.state, found.error) == ("failed", "finishing failed 3 times: boom")


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_submitting_a_job_that_has_ended_queues_it_again(ledger: Ledger, end: str) -> None:
    """It is the same job: what is measured stays measured, attempts begin anew, and old leases count for nothing."""
    job = submit(ledger, count=2)
    assert ledger.commit(claim(ledger), "0.partial")
    late = claim(ledger)
    if end == "cancelled":
        assert ledger.cancel(job)
    else:
        for _ in range(1, ATTEMPTS):
            assert ledger.fail(late, "boom", 0)
            late = claim(ledger)
        assert ledger.fail(late, "boom", 0)
    before = ledger.jobs()[0]
    assert (before.state, before.finished_at is not None) == (end, True)
    assert ledger.submit("r1", "r1", {}, 2, 100, 0, "1") == (job, False)
    after = ledger.jobs()[0]
    assert (after.state, after.error, after.finished_at, after.done) == ("queued", None, None, 1)
    leases = 1 + (1 if end == "cancelled" else ATTEMPTS)  # queueing is none
    assert after.attempts == before.attempts == ledger.totals().leases == leases
    assert not ledger.commit(late, "late.partial")
    again = claim(ledger)
    assert (again.number, again.attempts) == (1, 1)
    assert not ledger.commit(late, "late.partial")
    assert ledger.commit(again, "1.partial")


def test_a_cancelled_job_lets_go(ledger: Ledger) -> None:
    job = submit(ledger)
    lease = claim(ledger)
    assert ledger.cancel(job)
    assert not ledger.cancel(job)
    assert not ledger.renew(lease, 60)
    assert not ledger.commit(lease, "x")
    assert ledger.claim("b", 60, "1") is None


def test_bad_images_are_handed_on_and_the_shard_begins_anew(ledger: Ledger) -> None:
    submit(ledger, count=1)
    lease = claim(ledger)
    assert ledger.exclude(lease, 7, "it ends the process")
    again = claim(ledger)
    assert (again.attempts, again.bad) == (1, {7: "it ends the process"})
    assert ledger.exclude(again, 7, "it does so again")
    assert claim(ledger).bad == {7: "it ends the process"}  # the first reason stands
    assert ledger.jobs()[0].set_aside == ledger.totals().set_aside == 1


def test_other_releases_leave_it_alone(ledger: Ledger) -> None:
    submit(ledger, version="2")
    assert ledger.claim("a", 60, "1") is None
    assert ledger.claim("a", 60, "2") is not None


def test_jobs_are_found_by_number_name_and_run(ledger: Ledger) -> None:
    job = ledger.submit("abcdef0123", "night", {}, 1, 10, 0, "1")[0]
    for text in (str(job), "night", "abcdef0123", "abcd"):
        assert ledger.find(text).id == job
    with pytest.raises(SpecError, match="did you mean night"):
        ledger.find("nigth")
    ledger.submit("abcdef4567", "day", {}, 1, 10, 0, "1")
    assert ledger.find("abcdef4").name == "day"
    for text in ("abcdef", "abc"):  # the beginning of two, and too short a one
        with pytest.raises(SpecError, match=f"no job '{text}' in "):
            ledger.find(text)
    ledger.note(job, "w", "one")
    ledger.note(job, "w", "two")
    first, second = ledger.events(job)
    assert (first[3], second[3]) == ("one", "two")
    assert ledger.events(job, first[0]) == [second]
    assert ledger.counts() == {"job_queued": 2, "shard_waiting": 4}


def _patiently(ask: Callable[..., Any], *args: object) -> Any:
    """As workers do where SQLite lets one writer of eight wait for more than ten seconds."""
    while True:
        try:
            return ask(*args)
        except RetryLater:
            continue


def _claimer(workspace: Workspace, name: str, results: "multiprocessing.Queue[list[tuple[int, int]]]") -> None:
    taken = []
    with Store.open(workspace) as store:
        ledger = Ledger(store, time.time)
        while (lease := _patiently(ledger.claim, name, 600, "1")) is not None:
            if lease.kind == "measure" and _patiently(ledger.commit, lease, name):
                taken.append((lease.job_id, lease.number))
            elif lease.kind == "finish":
                _patiently(ledger.commit, lease, None)
    results.put(taken)


def test_eight_writers_commit_every_shard_once(workspace: Workspace) -> None:
    """A fixed part of the campaign: 4 jobs of 64 shards; `python -m tests.campaigns.claims` does 10,000 claims."""
    assert claims(workspace, jobs=4, writers=8) == (256, 0)


def claims(workspace: Workspace, jobs: int, writers: int) -> tuple[int, int]:
    """(shards committed, shards committed twice or lost) by so many processes."""
    with Store.open(workspace) as store:
        ledger = Ledger(store, time.time)
        for number in range(jobs):
            submit(ledger, f"run-{number}", 64)
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[list[tuple[int, int]]] = context.Queue()
    processes = [context.Process(target=_claimer, args=(workspace, f"w{i}", results)) for i in range(writers)]
    for process in processes:
        process.start()
    taken = [pair for _ in processes for pair in results.get(timeout=600)]
    for process in processes:
        process.join()
    with Store.open(workspace, readonly=True) as store:
        states = {job.state for job in Ledger(store, time.time).jobs()}
    assert states == {"finished"}
    return len(taken), len(taken) - len(set(taken)) + jobs * 64 - len(set(taken))
