"""Attributions in the database: what was asked of which image, what was replaced on the way, how good the map is, which
units carried it; and tables that judge methods over a set.

An attribution's id is a fingerprint of everything that decides its numbers, so the same command again replaces its own
row. The map and the image lie beside the database in one array file.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, select

from dissect.store import migrate, tables
from dissect.store.attribution_tables import attribution_carriers, attributions, judgement_scores, judgements
from dissect.store.store import Store


@dataclass(frozen=True)
class AttributionRecord:
    """One map. `replaced`: calls that a rule replaced, None where the method has no rule; `audit`: which they were.

    `parameters` is everything that was in the method's slots, `measures` what was judged on this map, `facts` what else
    the method told (notes, engine, correlations of occluders, sums by concept). `arrays` is relative to the workspace
    where it lies inside, else absolute. `run_id`: the dissection that named the units.
    """

    method: str
    model: str
    image: str
    image_sha256: str
    target: str
    score: float
    arrays: str
    parameters: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] | None = None
    replaced: int | None = None
    measures: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str | None = None
    run_id: str | None = None
    layer: str | None = None
    created_at: str = ""
    id: str = ""


@dataclass(frozen=True)
class CarrierRecord:
    """A unit's part in a decision; the label is the one that the run gave it then."""

    rank: int
    unit: int
    contribution: float
    share: float
    concept: str | None = None
    category: str | None = None
    iou: float | None = None
    detector: int | None = None


@dataclass(frozen=True)
class JudgementRecord:
    """One table: a model's maps judged over `items` questions of a set. settings: everything the scores depend on."""

    model: str
    data_name: str
    items: int
    settings: dict[str, Any]
    weights_sha256: str | None = None
    data_fingerprint: str | None = None
    run_id: str | None = None
    created_at: str = ""
    id: str = ""


@dataclass(frozen=True)
class ScoreRecord:
    """One cell: the mean of a score over the questions, its standard error, and the value of each question."""

    method: str
    score: str
    position: int
    baseline: int
    mean: float
    error: float | None
    each: list[float]


COLUMNS = (
    "attribution", "run", "method", "model", "image", "target", "score", "layer", "replaced", "parameters", "measures",
    "audit", "arrays",
)  # fmt: skip
CARRIER_COLUMNS = (
    "attribution", "run", "model", "image", "target", "layer", "rank", "unit", "concept", "category", "iou",
    "contribution", "share",
)  # fmt: skip
JUDGEMENT_COLUMNS = (
    "judgement", "run", "model", "data", "items", "method", "baseline", "score", "mean", "error", "settings",
)  # fmt: skip
_OBJECTS = ("parameters", "audit", "measures", "facts", "settings", "each")


def identity(record: AttributionRecord) -> str:
    """The id that a record gets: of everything that decides its numbers, so neither of files nor of measures."""
    return _fingerprint(
        record.method, record.model, record.weights_sha256, record.image_sha256, record.target, record.run_id,
        record.layer, record.parameters,
    )  # fmt: skip


def save(store: Store, record: AttributionRecord, carriers: Sequence[CarrierRecord] = ()) -> AttributionRecord:
    """Write an attribution with its carriers in one transaction, in place of an earlier one of the same id."""
    record = replace(record, id=record.id or identity(record), created_at=record.created_at or migrate.now())
    with store.writing() as connection:
        connection.execute(delete(attributions).where(attributions.c.id == record.id))
        connection.execute(insert(attributions).values(**_plain(record)))
        if carriers:
            rows = [_plain(one) | {"attribution_id": record.id} for one in carriers]
            connection.execute(insert(attribution_carriers), rows)
    return record


def save_judgement(store: Store, record: JudgementRecord, scores: Sequence[ScoreRecord]) -> JudgementRecord:
    """Write a table with its cells in one transaction, in place of an earlier one of the same id."""
    decides = (record.model, record.weights_sha256, record.data_name, record.data_fingerprint, record.run_id,
               record.settings, sorted({one.method for one in scores}))  # fmt: skip
    record = replace(record, id=record.id or _fingerprint(*decides), created_at=record.created_at or migrate.now())
    with store.writing() as connection:
        connection.execute(delete(judgements).where(judgements.c.id == record.id))
        connection.execute(insert(judgements).values(**_plain(record)))
        connection.execute(insert(judgement_scores), [_plain(one) | {"judgement_id": record.id} for one in scores])
    return record


def every(store: Store, run_id: str | None = None) -> list[AttributionRecord]:
    """All attributions, or those whose units a run named, oldest first."""
    query = select(attributions).order_by(attributions.c.created_at, attributions.c.id)
    if run_id is not None:
        query = query.where(attributions.c.run_id == run_id)
    with store.reading() as connection:
        return [_record(AttributionRecord, row) for row in connection.execute(query)]


def carriers(store: Store, attribution_id: str) -> list[CarrierRecord]:
    """The units that carried a decision, largest part first; empty where they were not asked for."""
    table = attribution_carriers
    query = select(table).where(table.c.attribution_id == attribution_id).order_by(table.c.rank)
    with store.reading() as connection:
        return [_record(CarrierRecord, row) for row in connection.execute(query)]


def every_judgement(store: Store) -> list[JudgementRecord]:
    """All judging tables, oldest first."""
    query = select(judgements).order_by(judgements.c.created_at, judgements.c.id)
    with store.reading() as connection:
        return [_record(JudgementRecord, row) for row in connection.execute(query)]


def scores(store: Store, judgement_id: str) -> list[ScoreRecord]:
    """The cells of a table, row by row."""
    table = judgement_scores
    query = select(table).where(table.c.judgement_id == judgement_id).order_by(table.c.position)
    with store.reading() as connection:
        return [_record(ScoreRecord, row) for row in connection.execute(query)]


def rows(
    store: Store,
    run: str | None = None,
    method: str | None = None,
    image: str | None = None,
    target: str | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Rows of COLUMNS, one a map, oldest first. `image` is a file name. Raises SpecError for an unknown run."""
    table = attributions.c
    query = select(attributions, tables.runs.c.name.label("run_name"))
    query = query.select_from(attributions.outerjoin(tables.runs, tables.runs.c.id == table.run_id))
    query = query.order_by(table.created_at, table.id)
    for condition in _conditions(store, run, method, image, target):
        query = query.where(condition)
    with store.reading() as connection:
        found = connection.execute(query).all()
    for row in found:
        yield (
            row.id, row.run_name or row.run_id, row.method, row.model, row.image, row.target, row.score, row.layer,
            row.replaced, row.parameters, row.measures, row.audit, row.arrays,
        )  # fmt: skip


def carrier_rows(
    store: Store,
    run: str | None = None,
    image: str | None = None,
    target: str | None = None,
    concept: str | None = None,
    unit: int | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Rows of CARRIER_COLUMNS, one a unit of a decision. Raises SpecError for an unknown run."""
    table, carrier = attributions.c, attribution_carriers.c
    query = select(attributions, attribution_carriers, tables.runs.c.name.label("run_name"))
    joined = attributions.join(attribution_carriers, table.id == carrier.attribution_id)
    query = query.select_from(joined.outerjoin(tables.runs, tables.runs.c.id == table.run_id))
    query = query.order_by(table.created_at, table.id, carrier.rank)
    for condition in _conditions(store, run, None, image, target):
        query = query.where(condition)
    for column, value in ((carrier.concept, concept), (carrier.unit, unit)):
        if value is not None:
            query = query.where(column == value)
    with store.reading() as connection:
        found = connection.execute(query).all()
    for row in found:
        yield (
            row.id, row.run_name or row.run_id, row.model, row.image, row.target, row.layer, row.rank, row.unit,
            row.concept, row.category, row.iou, row.contribution, row.share,
        )  # fmt: skip


def judgement_rows(store: Store, run: str | None = None, method: str | None = None) -> Iterator[tuple[Any, ...]]:
    """Rows of JUDGEMENT_COLUMNS, one a cell of a table. Raises SpecError for an unknown run."""
    table, cell = judgements.c, judgement_scores.c
    query = select(judgements, judgement_scores, tables.runs.c.name.label("run_name"))
    joined = judgements.join(judgement_scores, table.id == cell.judgement_id)
    query = query.select_from(joined.outerjoin(tables.runs, tables.runs.c.id == table.run_id))
    query = query.order_by(table.created_at, table.id, cell.position)
    if run is not None:
        query = query.where(table.run_id == store.get_run(run).id)
    if method is not None:
        query = query.where(cell.method == method)
    with store.reading() as connection:
        found = connection.execute(query).all()
    for row in found:
        yield (
            row.id, row.run_name or row.run_id, row.model, row.data_name, row.items, row.method, row.baseline,
            row.score, row.mean, row.error, row.settings,
        )  # fmt: skip


def arrays(store: Store, record: AttributionRecord) -> Path:
    """The array file of an attribution."""
    return store.workspace.root / record.arrays


def _conditions(
    store: Store, run: str | None, method: str | None, image: str | None, target: str | None
) -> list[ColumnElement[bool]]:
    table = attributions.c
    found = [table.run_id == store.get_run(run).id] if run is not None else []
    pairs = ((table.method, method), (table.image, image), (table.target, target))
    return found + [column == value for column, value in pairs if value is not None]


def _fingerprint(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _plain(record: Any) -> dict[str, Any]:
    found = {one.name: getattr(record, one.name) for one in fields(record)}
    return {k: json.dumps(v, allow_nan=False) if isinstance(v, dict | list) else v for k, v in found.items()}


def _record(kind: type[Any], row: Row[Any]) -> Any:
    found = {one.name: getattr(row, one.name) for one in fields(kind)}
    return kind(**{k: json.loads(v) if k in _OBJECTS and v is not None else v for k, v in found.items()})
