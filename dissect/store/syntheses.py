"""Synthesised pictures in the database: what was asked, how it was made, what came out, and the fooling archives.

A synthesis is one command's result. Its id is a fingerprint of everything that decides its bytes, so the same command
again replaces its own rows. The pictures lie in its folder; a row for each says what it shows and how good it is.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sqlalchemy import Row, and_, delete, insert, or_, select

from dissect.store import migrate, tables
from dissect.store.store import Store
from dissect.store.synthesis_tables import syntheses, synthesis_cells, synthesis_pictures


@dataclass(frozen=True)
class PictureRecord:
    """One file of a synthesis. path is relative to its folder; loss is the last objective; measures are judgements."""

    kind: str
    path: str
    sha256: str
    layer: str | None = None
    unit: int | None = None
    target: str | None = None
    image: str | None = None
    restart: int | None = None
    loss: float | None = None
    measures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SynthesisRecord:
    """One command's result. parts: objective, image, priors, phases, optimiser; facts: what the command reports.

    folder is relative to the workspace where it lies inside, else absolute; run_id is the dissection it belongs to.
    """

    id: str
    command: str
    model: str
    seed: int
    parts: dict[str, Any]
    facts: dict[str, Any]
    folder: str
    run_id: str | None = None
    weights_sha256: str | None = None
    created_at: str = ""


@dataclass(frozen=True)
class CellRecord:
    """One class of a fooling archive: the confidence, the generation that bred it, and its genome as npz bytes."""

    cell: int
    fitness: float
    generation: int
    genome: bytes


COLUMNS = (
    "synthesis", "run", "command", "model", "kind", "layer", "unit", "target", "image", "restart", "loss", "measures",
    "path", "sha256",
)  # fmt: skip


def save(
    store: Store, record: SynthesisRecord, pictures: Sequence[PictureRecord], cells: Sequence[CellRecord] = ()
) -> None:
    """Write a synthesis with its pictures and cells in one transaction, in place of an earlier one of the same id."""
    values = _plain(record) | {"created_at": record.created_at or migrate.now()}
    with store.writing() as connection:
        connection.execute(delete(syntheses).where(syntheses.c.id == record.id))
        connection.execute(insert(syntheses).values(**values))
        for table, records in ((synthesis_pictures, pictures), (synthesis_cells, cells)):
            rows = [_plain(one) | {"synthesis_id": record.id} for one in records]
            if table is synthesis_pictures:
                rows = [row | {"position": at} for at, row in enumerate(rows)]
            if rows:
                connection.execute(insert(table), rows)


def every(store: Store, run_id: str | None = None) -> list[SynthesisRecord]:
    """All syntheses, or those of a run, oldest first."""
    query = select(syntheses).order_by(syntheses.c.created_at, syntheses.c.id)
    if run_id is not None:
        query = query.where(syntheses.c.run_id == run_id)
    with store.reading() as connection:
        return [_record(SynthesisRecord, row, ("parts", "facts")) for row in connection.execute(query)]


def pictures(store: Store, synthesis_id: str) -> list[PictureRecord]:
    """The files of a synthesis, in the order in which they were made."""
    table = synthesis_pictures
    query = select(table).where(table.c.synthesis_id == synthesis_id).order_by(table.c.position)
    with store.reading() as connection:
        return [_record(PictureRecord, row, ("measures",)) for row in connection.execute(query)]


def of_layer(store: Store, run_id: str, weights_sha256: str | None, layer: str) -> list[tuple[Path, PictureRecord]]:
    """What was synthesised for units of a run's layer, in their order, oldest first, with its file. It belongs to the
    run, or to no run and was made on the same weights."""
    table = synthesis_pictures.c
    mine = syntheses.c.run_id == run_id
    if weights_sha256 is not None:
        mine = or_(mine, and_(syntheses.c.run_id.is_(None), syntheses.c.weights_sha256 == weights_sha256))
    query = select(synthesis_pictures, syntheses.c.folder)
    query = query.select_from(synthesis_pictures.join(syntheses, syntheses.c.id == table.synthesis_id))
    query = query.where(table.layer == layer, table.unit.is_not(None), mine)
    query = query.order_by(table.unit, syntheses.c.created_at, syntheses.c.id, table.position)
    with store.reading() as connection:
        found = connection.execute(query).all()
    root = store.workspace.root
    return [(root / row.folder / row.path, _record(PictureRecord, row, ("measures",))) for row in found]


def cells(store: Store, synthesis_id: str) -> list[CellRecord]:
    """The archive of a synthesis by class; empty where it has none."""
    table = synthesis_cells
    query = select(table).where(table.c.synthesis_id == synthesis_id).order_by(table.c.cell)
    with store.reading() as connection:
        return [_record(CellRecord, row) for row in connection.execute(query)]


def rows(
    store: Store,
    run: str | None = None,
    command: str | None = None,
    layer: str | None = None,
    unit: int | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Rows of COLUMNS, one a picture, by synthesis and order of making. Raises SpecError for an unknown run."""
    table = synthesis_pictures.c
    query = select(
        syntheses.c.id, tables.runs.c.name, syntheses.c.run_id, syntheses.c.command, syntheses.c.model,
        syntheses.c.folder, table.kind, table.layer, table.unit, table.target, table.image, table.restart, table.loss,
        table.measures, table.path, table.sha256,
    )  # fmt: skip
    query = query.select_from(
        synthesis_pictures.join(syntheses, syntheses.c.id == table.synthesis_id).outerjoin(
            tables.runs, tables.runs.c.id == syntheses.c.run_id
        )
    ).order_by(syntheses.c.created_at, syntheses.c.id, table.position)
    if run is not None:
        query = query.where(syntheses.c.run_id == store.get_run(run).id)
    for column, value in ((syntheses.c.command, command), (table.layer, layer), (table.unit, unit)):
        if value is not None:
            query = query.where(column == value)
    with store.reading() as connection:
        found = connection.execute(query).all()
    for row in found:
        yield (
            row.id, row.name or row.run_id, row.command, row.model, row.kind, row.layer, row.unit, row.target,
            row.image, row.restart, row.loss, row.measures, f"{row.folder}/{row.path}", row.sha256,
        )  # fmt: skip


def folder(store: Store, record: SynthesisRecord) -> Path:
    """Where the files of a synthesis lie."""
    return store.workspace.root / record.folder


def _plain(record: Any) -> dict[str, Any]:
    found = {one.name: getattr(record, one.name) for one in fields(record)}
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in found.items()}


def _record(kind: type[Any], row: Row[Any], objects: Sequence[str] = ()) -> Any:
    found = {one.name: getattr(row, one.name) for one in fields(kind)}
    return kind(**{name: json.loads(value) if name in objects else value for name, value in found.items()})
