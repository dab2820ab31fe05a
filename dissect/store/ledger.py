"""The ledger: who may work on which shard, and whose result counts.

A shard is leased for a time under a fencing token, which grows with every lease. Only the holder of the present token
can commit, renew, give back or fail it; whoever was thought dead and comes back finds its token old (Kleppmann,
Designing Data-Intensive Applications, 2017, chapter 8). A claim is one short transaction: BEGIN IMMEDIATE on SQLite,
FOR UPDATE SKIP LOCKED on PostgreSQL. Clocks only decide when a lease may be taken over, never whose result counts.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, insert, or_, select, update

from dissect.errors import SpecError
from dissect.store.ledger_tables import events, jobs, set_aside, shards
from dissect.store.migrate import now
from dissect.store.store import Store
from dissect.suggest import suggestion

OPEN = ("queued", "running")
ATTEMPTS = 3


@dataclass(frozen=True)
class JobRecord:
    """A job; `done` of `shards` shards are measured, `held` are being worked on, `set_aside` images were left out
    because they end the process. attempts: leases of its shards. error: why it failed."""

    id: int
    run_id: str
    name: str
    request: Mapping[str, Any]
    state: str
    priority: int
    images: int
    code_version: str
    created_at: str
    finished_at: str | None
    error: str | None
    shards: int
    done: int
    attempts: int
    held: int
    set_aside: int


@dataclass(frozen=True)
class Totals:
    """Of all known jobs: leases ever given, images set aside, leases that have run out and wait for another worker."""

    leases: int
    set_aside: int
    lapsed: int


@dataclass(frozen=True)
class Lease:
    """The right to work on a shard. kind "measure": shard `number` of `count`; "finish": put them together."""

    job_id: int
    run_id: str
    number: int
    count: int
    kind: str
    token: int
    attempts: int
    bad: Mapping[int, str]


class Ledger:
    """Jobs and shards of a store; `clock` tells seconds and is shared by all workers."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.store, self.clock = store, clock

    def submit(
        self, run_id: str, name: str, request: Mapping[str, Any], count: int, images: int, priority: int, version: str
    ) -> tuple[int, bool]:
        """Queue a run in `count` shards; (job, whether it is new). A failed or cancelled one is queued again."""
        with self.store.writing() as connection:
            found = connection.execute(select(jobs.c.id, jobs.c.state).where(jobs.c.run_id == run_id)).first()
            if found is not None:
                if found.state in ("failed", "cancelled"):
                    self._requeue(connection, found.id)
                return found.id, False
            row = {
                "run_id": run_id, "name": name, "request": json.dumps(request), "state": "queued", "priority": priority,
                "images": images, "code_version": version, "created_at": now(),
            }  # fmt: skip
            job = connection.execute(insert(jobs).values(**row)).inserted_primary_key[0]  # type: ignore[index]
            rows = [
                {
                    "job_id": job, "number": number, "kind": "measure" if number < count else "finish",
                    "state": "waiting", "lease_until": 0.0, "not_before": 0.0, "token": 0, "attempts": 0,
                }
                for number in range(count + 1)
            ]  # fmt: skip
            connection.execute(insert(shards), rows)
            return job, True

    def claim(self, owner: str, seconds: float, version: str) -> Lease | None:
        """Lease the next shard for `seconds`: jobs of higher priority first, then older ones; None if nothing waits.

        Shards of another release's jobs are left to workers of that release: they would not give the same bits.
        """
        moment = self.clock()
        with self.store.writing() as connection:
            other = shards.alias("other")
            unmeasured = (
                select(1).where(other.c.job_id == shards.c.job_id, other.c.kind == "measure", other.c.state != "done")
            ).exists()
            free = or_(
                and_(shards.c.state == "waiting", shards.c.not_before <= moment),
                and_(shards.c.state == "leased", shards.c.lease_until < moment),
            )
            query = (
                select(shards, jobs.c.run_id, jobs.c.state.label("job_state"))
                .join(jobs, jobs.c.id == shards.c.job_id)
                .where(jobs.c.state.in_(OPEN), jobs.c.code_version == version, free)
                .where(or_(shards.c.kind == "measure", ~unmeasured))
                .order_by(jobs.c.priority.desc(), jobs.c.id, shards.c.number)
                .limit(1)
                .with_for_update(skip_locked=True, of=shards)
            )
            row = connection.execute(query).first()
            if row is None:
                return None
            values = {
                "state": "leased", "owner": owner, "lease_until": moment + seconds, "token": row.token + 1,
                "attempts": row.attempts + 1,
            }  # fmt: skip
            connection.execute(_this(row.job_id, row.number).values(**values))
            if row.job_state == "queued":
                connection.execute(update(jobs).where(jobs.c.id == row.job_id).values(state="running"))
            count = connection.execute(
                select(func.count()).where(shards.c.job_id == row.job_id, shards.c.kind == "measure")
            ).scalar_one()
            bad = connection.execute(
                select(set_aside.c.position, set_aside.c.reason).where(set_aside.c.job_id == row.job_id)
            ).all()
            return Lease(
                row.job_id, row.run_id, row.number, count, row.kind, row.token + 1, row.attempts + 1,
                dict(tuple(row) for row in bad),
            )  # fmt: skip

    def renew(self, lease: Lease, seconds: float) -> bool:
        """Hold on to a shard; False where it is no longer held, or its job was cancelled."""
        with self.store.writing() as connection:
            return self._change(connection, lease, {"lease_until": self.clock() + seconds})

    def commit(self, lease: Lease, partial: str | None) -> bool:
        """Enter a result, once: False where somebody else holds the shard by now."""
        values = {"state": "done", "partial": partial, "owner": None, "error": None}
        with self.store.writing() as connection:
            done = self._change(connection, lease, values)
            if done and lease.kind == "finish":
                self._end(connection, lease.job_id, "finished", None)
            return done

    def give_back(self, lease: Lease) -> bool:
        """Let a shard go without a failure: it waits again, and the attempt does not count."""
        values = {"state": "waiting", "owner": None, "attempts": lease.attempts - 1}
        with self.store.writing() as connection:
            return self._change(connection, lease, values)

    def fail(self, lease: Lease, error: str, pause: float) -> bool:
        """Note a failed attempt; the shard waits `pause` seconds, or its job fails with the last attempt."""
        values = {"state": "waiting", "owner": None, "error": error, "not_before": self.clock() + pause}
        with self.store.writing() as connection:
            kept = self._change(connection, lease, values)
            if kept and lease.attempts >= ATTEMPTS:
                what = f"shard {lease.number}/{lease.count}" if lease.kind == "measure" else "finishing"
                self._end(connection, lease.job_id, "failed", f"{what} failed {lease.attempts} times: {error}")
            return kept

    def exclude(self, lease: Lease, position: int, reason: str) -> bool:
        """Set an image aside for its job and let the shard wait anew, as if never tried. False as for `renew`."""
        with self.store.writing() as connection:
            kept = self._change(connection, lease, {"state": "waiting", "owner": None, "attempts": 0, "error": reason})
            mine = (set_aside.c.job_id == lease.job_id) & (set_aside.c.position == position)
            if kept and connection.execute(select(set_aside.c.position).where(mine)).first() is None:
                connection.execute(insert(set_aside).values(job_id=lease.job_id, position=position, reason=reason))
            return kept

    def cancel(self, job: int) -> bool:
        """Stop a job; workers notice at their next renewal. False where it had ended already."""
        with self.store.writing() as connection:
            return self._end(connection, job, "cancelled", None)

    def retry(self, job: int) -> bool:
        """Queue a failed or cancelled job again; what is measured stays measured. False for others."""
        with self.store.writing() as connection:
            state = connection.execute(select(jobs.c.state).where(jobs.c.id == job)).scalar()
            if state not in ("failed", "cancelled"):
                return False
            self._requeue(connection, job)
            return True

    def note(self, job: int, worker: str, text: str) -> None:
        """Write down what happened."""
        with self.store.writing() as connection:
            connection.execute(insert(events).values(job_id=job, at=now(), worker=worker, text=text))

    # Reading.

    def jobs(self) -> list[JobRecord]:
        """All jobs, oldest first."""
        count = select(func.count()).where(shards.c.job_id == jobs.c.id, shards.c.kind == "measure")
        done = count.where(shards.c.state == "done")
        mine = shards.c.job_id == jobs.c.id
        tried = select(func.coalesce(func.sum(shards.c.token), 0)).where(mine)
        held = select(func.count()).where(mine, shards.c.state == "leased")
        bad = select(func.count()).where(set_aside.c.job_id == jobs.c.id)
        query = select(
            jobs, count.scalar_subquery().label("shards"), done.scalar_subquery().label("done"),
            tried.scalar_subquery().label("attempts"), held.scalar_subquery().label("held"),
            bad.scalar_subquery().label("set_aside"),
        )  # fmt: skip
        with self.store.reading() as connection:
            rows = connection.execute(query.order_by(jobs.c.id)).all()
        plain = (
            {"request": json.loads(row.request), "attempts": int(row.attempts)} for row in rows
        )  # sums are Decimal
        return [JobRecord(**row._asdict() | facts) for row, facts in zip(rows, plain)]

    def find(self, text: str) -> JobRecord:
        """A job by number, name or run id (or its beginning). Raises SpecError."""
        known = self.jobs()
        exact = [j for j in known if text in (str(j.id), j.name, j.run_id)]
        begun = [j for j in known if len(text) >= 4 and j.run_id.startswith(text)]
        if exact or len(begun) == 1:
            return (exact or begun)[0]
        near = suggestion(text, [j.name for j in known], "`dissect jobs` lists them")
        raise SpecError(f"no job {text!r} in {self.store.where}{near}")

    def events(self, job: int, after: int = 0) -> list[tuple[int, str, str, str]]:
        """(number, time, worker, text) of a job, in order."""
        query = select(events.c.id, events.c.at, events.c.worker, events.c.text)
        query = query.where(events.c.job_id == job, events.c.id > after).order_by(events.c.id)
        with self.store.reading() as connection:
            return [tuple(row) for row in connection.execute(query)]

    def counts(self) -> dict[str, int]:
        """How many jobs and shards are in each state, as job_STATE and shard_STATE."""
        found: dict[str, int] = {}
        with self.store.reading() as connection:
            for name, table in (("job", jobs), ("shard", shards)):
                rows = connection.execute(select(table.c.state, func.count()).group_by(table.c.state))
                found |= {f"{name}_{state}": count for state, count in rows}
        return found

    def totals(self) -> Totals:
        """What metrics tell beside the counts."""
        late = (shards.c.state == "leased") & (shards.c.lease_until < self.clock())
        with self.store.reading() as connection:
            return Totals(
                int(connection.execute(select(func.coalesce(func.sum(shards.c.token), 0))).scalar_one()),
                connection.execute(select(func.count()).select_from(set_aside)).scalar_one(),
                connection.execute(select(func.count()).select_from(shards).where(late)).scalar_one(),
            )

    # Inside.

    def _change(self, connection: Connection, lease: Lease, values: Mapping[str, Any]) -> bool:
        held = (
            (shards.c.state == "leased")
            & (shards.c.token == lease.token)
            & select(1).where(jobs.c.id == lease.job_id, jobs.c.state.in_(OPEN)).exists()
        )
        return connection.execute(_this(lease.job_id, lease.number).where(held).values(**values)).rowcount == 1

    def _end(self, connection: Connection, job: int, state: str, error: str | None) -> bool:
        mine = (jobs.c.id == job) & jobs.c.state.in_(OPEN)
        values = {"state": state, "error": error, "finished_at": now()}
        return connection.execute(update(jobs).where(mine).values(**values)).rowcount == 1

    def _requeue(self, connection: Connection, job: int) -> None:
        connection.execute(update(jobs).where(jobs.c.id == job).values(state="queued", error=None, finished_at=None))
        rest = (shards.c.job_id == job) & (shards.c.state != "done")
        fresh = {"state": "waiting", "attempts": 0, "not_before": 0.0, "owner": None}  # old leases: no longer leased
        connection.execute(update(shards).where(rest).values(**fresh))


def _this(job: int, number: int) -> Any:
    return update(shards).where(shards.c.job_id == job, shards.c.number == number)
