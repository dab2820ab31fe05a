"""Schema versions: named steps, each applied in one transaction together with its record.

A new database gets the tables as they stand, an old one the steps that it lacks; both end with the same schema (a
test compares them over the kept databases of every released version). To change the schema: change `tables`, add a
Step at the end of STEPS, and keep a database of the old version with `tests/dissect/store/make_asset.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, insert, inspect, select, text, update

from dissect.errors import SpecError
from dissect.store import attribution_tables, ledger_tables, synthesis_tables, tables
from dissect.store.views import VIEWS


@dataclass(frozen=True)
class Step:
    """Takes a database from version - 1 to version; `apply` issues the statements on an open transaction."""

    version: int
    name: str
    apply: Callable[[Connection], None]


def _whole_schema(connection: Connection) -> None:
    for module in (tables, synthesis_tables, attribution_tables, ledger_tables):
        module.metadata.create_all(connection)


STEPS: tuple[Step, ...] = (Step(1, "first release", _whole_schema),)
LATEST = STEPS[-1].version


def now() -> str:
    """UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def version(connection: Connection) -> int:
    """Schema version of an open database, 0 for an empty one. Raises SpecError where it holds something else."""
    names = inspect(connection).get_table_names()
    if "meta" not in names:
        if names:
            raise SpecError(f"this is no database of dissect: it holds the tables {', '.join(sorted(names)[:5])}")
        return 0
    found = connection.execute(select(tables.meta.c.value).where(tables.meta.c.key == "schema_version")).scalar()
    if found is None or not found.isdigit():
        raise SpecError("this is no database of dissect: its table meta has no schema_version")
    return int(found)


def check(found: int, latest: int = LATEST) -> None:
    """Refuse a database that a newer release has written."""
    if found > latest:
        raise SpecError(
            f"the database has schema version {found}, this release of dissect knows up to {latest}: "
            "update dissect, or use another --workspace"
        )


def upgrade(engine: Engine, steps: Sequence[Step] = STEPS) -> list[Step]:
    """Bring a database to the newest version; returns the steps taken. Two processes may try at once.

    Raises SpecError for a newer or a foreign database.
    """
    latest = steps[-1].version
    taken = []
    with engine.connect() as connection:
        current = version(connection)
    check(current, latest)
    while current < latest:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(614372151)"))
            current = version(connection)
            if current >= latest:
                break
            pending = [step for step in steps if step.version > current]
            if current == 0:
                _create(connection, steps)
                taken, current = pending, latest
            else:
                _take(connection, pending[0])
                taken.append(pending[0])
                current = pending[0].version
    return taken


def _create(connection: Connection, steps: Sequence[Step]) -> None:
    """The newest schema at once, recorded as if every step had been taken."""
    steps[0].apply(connection)
    _make_views(connection)
    _plan(connection)
    stamp = now()
    for step in steps:
        connection.execute(insert(tables.migrations).values(version=step.version, name=step.name, applied_at=stamp))
    connection.execute(insert(tables.meta).values(key="schema_version", value=str(steps[-1].version)))


def _take(connection: Connection, step: Step) -> None:
    for name in reversed(VIEWS):
        connection.execute(text(f"DROP VIEW IF EXISTS {name}"))
    step.apply(connection)
    _make_views(connection)
    _plan(connection)
    connection.execute(insert(tables.migrations).values(version=step.version, name=step.name, applied_at=now()))
    connection.execute(update(tables.meta).where(tables.meta.c.key == "schema_version").values(value=str(step.version)))


def _make_views(connection: Connection) -> None:
    for name, query in VIEWS.items():
        connection.execute(text(f"CREATE VIEW {name} AS {query}"))


# What ANALYZE finds in a large database (rows of a table or index, then rows that share 1, 2 … leading columns).
# Fixed, so that every database is asked in the same way from its first run on; a user's own ANALYZE replaces it.
_STATISTICS = {
    ("runs", "sqlite_autoindex_runs_1"): "20 1",
    ("layers", "layers_by_position"): "50 4 1",
    ("layers", "layers_by_name"): "50 4 1",
    ("categories", "categories"): "120 6 1",
    ("concepts", "concepts"): "24000 1200 1",
    ("concepts", "concepts_by_name"): "24000 1200 1",
    ("units", "units"): "200000 40000 1",
    ("units", "units_by_iou"): "200000 40000 4 1",
    ("units", "units_by_label"): "200000 40000 200 2",
    ("unit_areas", "unit_areas"): "1200000 240000 6 1",
    ("scores", "scores"): "1500000 300000 24 1",
    ("scores", "scores_by_concept"): "1500000 300000 1200 1",
    ("scores", "scores_by_iou"): "1500000 300000 4 2 1",
    ("exemplars", "exemplars"): "2000000 400000 10 1",
}


def _plan(connection: Connection) -> None:
    """Give SQLite's planner the statistics above."""
    if connection.dialect.name != "sqlite":
        return
    connection.execute(text("ANALYZE sqlite_master"))
    connection.execute(text("DELETE FROM sqlite_stat1"))
    rows = [{"t": table, "i": index, "s": found} for (table, index), found in _STATISTICS.items()]
    connection.execute(text("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (:t, :i, :s)"), rows)
