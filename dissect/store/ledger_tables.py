"""Tables of the batch service: jobs, their shards, and what happened to them."""

from typing import Any

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table, text

from dissect.store.tables import INTEGER, REAL, TEXT, metadata


def _table(name: str, *items: Any, rowid: bool = True) -> Table:
    return Table(name, metadata, *items, sqlite_strict=True, sqlite_with_rowid=rowid)


jobs = _table(
    "jobs",
    Column("id", INTEGER, primary_key=True),
    Column("run_id", TEXT, unique=True, nullable=False),
    Column("name", TEXT, nullable=False),
    Column("request", TEXT, nullable=False),
    Column(
        "state", TEXT,
        CheckConstraint("state IN ('queued', 'running', 'finished', 'failed', 'cancelled')"), nullable=False,
    ),
    Column("priority", INTEGER, nullable=False),
    Column("images", INTEGER, nullable=False),
    Column("code_version", TEXT, nullable=False),
    Column("created_at", TEXT, nullable=False),
    Column("finished_at", TEXT),
    Column("error", TEXT),
    Index("jobs_by_state", "state", text("priority DESC"), "id"),
)  # fmt: skip

shards = _table(
    "shards",
    Column("job_id", INTEGER, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("number", INTEGER, primary_key=True, autoincrement=False),
    Column("kind", TEXT, CheckConstraint("kind IN ('measure', 'finish')"), nullable=False),
    Column("state", TEXT, CheckConstraint("state IN ('waiting', 'leased', 'done')"), nullable=False),
    Column("owner", TEXT),
    Column("lease_until", REAL, nullable=False),
    Column("not_before", REAL, nullable=False),
    Column("token", INTEGER, nullable=False),
    Column("attempts", INTEGER, nullable=False),
    Column("partial", TEXT),
    Column("error", TEXT),
    rowid=False,
)

set_aside = _table(
    "set_aside",
    Column("job_id", INTEGER, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("position", INTEGER, primary_key=True, autoincrement=False),
    Column("reason", TEXT, nullable=False),
    rowid=False,
)

events = _table(
    "events",
    Column("id", INTEGER, primary_key=True),
    Column("job_id", INTEGER, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("at", TEXT, nullable=False),
    Column("worker", TEXT, nullable=False),
    Column("text", TEXT, nullable=False),
    Index("events_by_job", "job_id", "id"),
)
