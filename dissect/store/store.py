"""The store: runs go in whole or not at all, and come out as records and columns.

Writers queue; readers take short looks and never stand in a writer's way for longer than one of them.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, Table, delete, func, insert, select, update

from dissect.errors import DissectError, SpecError
from dissect.scores import REALS, ScoreTable
from dissect.store import bulk, engine, faults, migrate, tables
from dissect.store.records import (
    ArtifactRecord,
    CategoryRecord,
    ConceptRecord,
    ExcludedRecord,
    ExemplarTable,
    LayerRecord,
    RunRecord,
    StoredLayer,
    UnitTable,
    check_layer,
)
from dissect.suggest import suggestion
from dissect.workspace import Workspace

_NAME = re.compile(r"[^\W_][\w .,+@=~:()\[\]-]{0,119}")
_OBJECTS = ("spec", "provenance", "timings")
_UNIT_KINDS: dict[str, Any] = {
    "threshold": np.float32, "low": np.float32, "high": np.float32, "mean": np.float64, "std": np.float64,
    "dead": np.bool_, "saturated": np.bool_, "nonfinite": np.int64, "area": np.int64, "label": np.int64,
    "iou": np.float64, "stability": np.float64, "p_value": np.float64, "q_value": np.float64,
    "iou_null": np.float64,
}  # fmt: skip
_SCORE_KINDS: dict[str, Any] = {
    field.name: np.float64 if field.name in REALS else np.int64 for field in fields(ScoreTable)
}
_EXEMPLAR_KINDS: dict[str, Any] = {
    "unit": np.int64, "rank": np.int64, "image_position": np.int64, "image": object, "activation": np.float32,
    "row": np.int64, "column": np.int64,
}  # fmt: skip


class Store:
    """An open database. Use as a context manager or call `close`."""

    def __init__(self, workspace: Workspace, readonly: bool) -> None:
        self.workspace, self.readonly = workspace, readonly
        self.url = engine.parse(workspace.url)
        self.where = engine.shown(self.url)
        with faults.translated(self.where):
            self.engine = engine.open_engine(self.url, readonly)

    @classmethod
    def open(cls, workspace: Workspace | str | Path, readonly: bool = False) -> "Store":
        """Open the database of a workspace, given as such, as a folder, or as a database URL.

        For writing it is created and brought to the newest schema as needed. For reading it must exist; one of an
        older release is brought up to date first where the disk allows.
        Raises SpecError (absent, foreign, newer schema, read-only), RetryLater (in use, unreachable).
        """
        if not isinstance(workspace, Workspace):
            text = str(workspace)
            workspace = Workspace.at(db=text) if "://" in text else Workspace.at(text)
        file = workspace.database
        if readonly and file is not None and not file.is_file():
            raise SpecError(
                f"there is no database {file}: `dissect run` or `dissect import` makes one, --workspace names another"
            )
        if not readonly:
            _make_folder(workspace)
        store = cls(workspace, readonly)
        with faults.translated(store.where):
            if readonly:
                with store.engine.connect() as connection:
                    found = migrate.version(connection)
                migrate.check(found)
                if found < migrate.LATEST:
                    cls.open(workspace).close()
            else:
                migrate.upgrade(store.engine)
        return store

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing.

    def begin_run(self, run: RunRecord) -> RunRecord:
        """Enter a run as running, or find it: the record as stored comes back, in whatever state it is.

        A known run keeps everything but its name (where one is given) and, if it had failed, its state.
        Raises SpecError where the name is bad or belongs to another run.
        """
        self._check_name(run)
        with self.writing() as connection:
            if run.name is not None:
                owner = connection.execute(select(tables.runs.c.id).where(tables.runs.c.name == run.name)).scalar()
                if owner not in (None, run.id):
                    raise SpecError(
                        f"the name {run.name!r} belongs to run {owner}, which has another specification: "
                        "choose another --name, or delete that run"
                    )
            found = connection.execute(select(tables.runs).where(tables.runs.c.id == run.id)).first()
            if found is None:
                stored = replace(run, state="running", created_at=migrate.now(), finished_at=None, error=None)
                connection.execute(insert(tables.runs).values(**_run_values(stored)))
                return stored
            changes: dict[str, Any] = {}
            if run.name is not None and run.name != found.name:
                changes["name"] = run.name
            if found.state == "failed":
                changes |= {"state": "running", "error": None}
            if changes:
                connection.execute(update(tables.runs).where(tables.runs.c.id == run.id).values(**changes))
            return replace(_run_record(found), **changes)

    def finish_run(
        self,
        run_id: str,
        layers: Sequence[LayerRecord],
        concepts: Iterable[ConceptRecord],
        categories: Iterable[CategoryRecord],
        excluded: Iterable[ExcludedRecord] = (),
        artifacts: Iterable[ArtifactRecord] = (),
        state: str = "finished",
        **facts: Any,
    ) -> RunRecord:
        """Write everything that a run found, in one transaction. `facts` sets columns of the run: images,
        excluded_images, label_h, label_w, provenance, timings, peak_rss_bytes … A run that is already finished is
        replaced. Raises DissectError where the records contradict each other, SpecError for an unknown run."""
        concepts = sorted(concepts, key=lambda concept: concept.number)
        categories = sorted(categories, key=lambda category: category.index)
        numbers = {concept.number for concept in concepts}
        for layer in layers:
            check_layer(layer, numbers, len(categories))
        values = {key: _stored(key, value) for key, value in facts.items()}
        values |= {"state": state, "finished_at": migrate.now(), "error": None}
        with self.writing() as connection:
            found = connection.execute(select(tables.runs.c.id).where(tables.runs.c.id == run_id)).scalar()
            if found is None:
                raise SpecError(f"run {run_id!r} was never begun in {self.where}")
            _clear(connection, run_id)
            _insert_records(connection, tables.categories, run_id, categories)
            _insert_records(connection, tables.concepts, run_id, concepts)
            _insert_records(connection, tables.excluded, run_id, sorted(excluded, key=lambda item: item.position))
            _insert_records(connection, tables.artifacts, run_id, artifacts)
            for position, layer in enumerate(layers):
                _insert_layer(connection, run_id, position, layer)
            connection.execute(update(tables.runs).where(tables.runs.c.id == run_id).values(**values))
        return self.get_run(run_id)

    def fail_run(self, run_id: str, error: str) -> None:
        """Note why a running run ended. A finished run stays as it is."""
        with self.writing() as connection:
            mine = (tables.runs.c.id == run_id) & tables.runs.c.state.in_(("running", "failed"))
            connection.execute(update(tables.runs).where(mine).values(state="failed", error=error))

    def delete_run(self, id_or_name: str) -> RunRecord:
        """Remove a run and all its rows; files in the workspace stay. Raises SpecError for an unknown run."""
        run = self.get_run(id_or_name)
        with self.writing() as connection:
            _clear(connection, run.id)
            connection.execute(delete(tables.runs).where(tables.runs.c.id == run.id))
        return run

    # Reading.

    def runs(self, states: Sequence[str] | None = None) -> list[RunRecord]:
        """All runs, or those in the given states, oldest first."""
        query = select(tables.runs).order_by(tables.runs.c.created_at, tables.runs.c.id)
        if states is not None:
            query = query.where(tables.runs.c.state.in_(states))
        with self.reading() as connection:
            return [_run_record(row) for row in connection.execute(query)]

    def get_run(self, id_or_name: str) -> RunRecord:
        """A run by id, by name, or by the beginning of its id (four characters or more) if only one begins so.

        Raises SpecError, naming what is near."""
        columns = tables.runs.c
        with self.reading() as connection:
            for match in (columns.id == id_or_name, columns.name == id_or_name):
                row = connection.execute(select(tables.runs).where(match)).first()
                if row is not None:
                    return _run_record(row)
            known = connection.execute(select(columns.id, columns.name).order_by(columns.created_at)).all()
            begun = [row.id for row in known if len(id_or_name) >= 4 and row.id.startswith(id_or_name)]
            if len(begun) == 1:
                return _run_record(connection.execute(select(tables.runs).where(columns.id == begun[0])).one())
        names = [name for row in known for name in (row.name, row.id) if name]
        end = suggestion(id_or_name, names, "`dissect runs` lists them")
        raise SpecError(f"no run {id_or_name!r} in {self.where}{end}")

    def layers(self, run_id: str) -> list[StoredLayer]:
        """Layers of a run, in the order asked for."""
        query = select(tables.layers).where(tables.layers.c.run_id == run_id).order_by(tables.layers.c.position)
        with self.reading() as connection:
            return [StoredLayer(**row._asdict()) for row in connection.execute(query)]

    def layer(self, run_id: str, name: str) -> StoredLayer:
        """One layer of a run. Raises SpecError."""
        found = self.layers(run_id)
        for layer in found:
            if layer.name == name:
                return layer
        raise SpecError(f"run {run_id} has no layer {name!r}{suggestion(name, [layer.name for layer in found])}")

    def categories(self, run_id: str) -> list[CategoryRecord]:
        """Categories of a run by index."""
        table = tables.categories
        query = (
            select(table.c.index, table.c.name, table.c.pixels).where(table.c.run_id == run_id).order_by(table.c.index)
        )
        with self.reading() as connection:
            return [CategoryRecord(*row) for row in connection.execute(query)]

    def concepts(self, run_id: str) -> list[ConceptRecord]:
        """Concepts of a run by number."""
        names = [field.name for field in fields(ConceptRecord)]
        query = select(*(tables.concepts.c[name] for name in names))
        query = query.where(tables.concepts.c.run_id == run_id).order_by(tables.concepts.c.number)
        with self.reading() as connection:
            found = [ConceptRecord(**row._asdict()) for row in connection.execute(query)]
        return [replace(concept, synonyms=tuple(json.loads(str(concept.synonyms)))) for concept in found]

    def excluded(self, run_id: str) -> list[ExcludedRecord]:
        """Images that were set aside, by position."""
        table = tables.excluded
        query = select(table.c.position, table.c.file, table.c.reason).where(table.c.run_id == run_id)
        with self.reading() as connection:
            return [ExcludedRecord(*row) for row in connection.execute(query.order_by(table.c.position))]

    def artifacts(self, run_id: str) -> list[ArtifactRecord]:
        table = tables.artifacts
        query = select(table.c.kind, table.c.path, table.c.sha256).where(table.c.run_id == run_id)
        with self.reading() as connection:
            return [ArtifactRecord(*row) for row in connection.execute(query.order_by(table.c.kind, table.c.path))]

    def units(self, layer: StoredLayer) -> UnitTable:
        """Columns [U] by unit; label 0 = none, area -1 = unknown, NaN where a value was not finite."""
        table = tables.units
        unknown = {"label": 0, "area": -1}
        columns = [
            func.coalesce(table.c[name], unknown[name]) if name in unknown else table.c[name] for name in _UNIT_KINDS
        ]
        query = select(*columns).where(table.c.layer_id == layer.id).order_by(table.c.unit)
        with self.reading() as connection:
            return UnitTable(**bulk.read(connection, query, _UNIT_KINDS))

    def unit_areas(self, layer: StoredLayer) -> np.ndarray:
        """A [U, K] int64."""
        table = tables.unit_areas
        query = select(table.c.area).where(table.c.layer_id == layer.id).order_by(table.c.unit, table.c.category)
        with self.reading() as connection:
            areas = bulk.read(connection, query, {"area": np.int64})["area"]
        return areas.reshape(layer.units, -1 if layer.units else 0)

    def scores(self, layer: StoredLayer) -> ScoreTable:
        """All stored pairs of a layer by unit, then rank."""
        table = tables.scores
        query = select(*(table.c[name] for name in _SCORE_KINDS)).where(table.c.layer_id == layer.id)
        with self.reading() as connection:
            return ScoreTable(**bulk.read(connection, query.order_by(table.c.unit, table.c.rank), _SCORE_KINDS))

    def exemplars(self, layer: StoredLayer) -> ExemplarTable:
        """All exemplars of a layer by unit, then rank."""
        table = tables.exemplars
        query = select(*(table.c[name] for name in _EXEMPLAR_KINDS)).where(table.c.layer_id == layer.id)
        with self.reading() as connection:
            found = bulk.read(connection, query.order_by(table.c.unit, table.c.rank), _EXEMPLAR_KINDS)
        return ExemplarTable(**found)

    def counts(self, layer: StoredLayer) -> np.ndarray:
        """The memory-mapped complete counts [U, L] int64. Raises SpecError where there are none."""
        counts = self.workspace.open_counts(layer.counts_file)
        if counts.ndim != 2 or len(counts) != layer.units or counts.dtype != np.int64:
            raise DissectError(
                f"counts file {layer.counts_file} holds {counts.dtype} {counts.shape}, "
                f"expected int64 of {layer.units} units"
            )
        return counts

    # Inside.

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction: all of it or nothing."""
        if self.readonly:
            raise DissectError(f"database {self.where} was opened for reading")
        with faults.translated(self.where), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent look, kept short: while it lasts a writer cannot commit."""
        with faults.translated(self.where), self.engine.begin() as connection:
            yield connection

    def _check_name(self, run: RunRecord) -> None:
        if run.name is not None and not _NAME.fullmatch(run.name):
            raise SpecError(
                f"run name {run.name!r} is not usable: expected up to 120 letters, digits, spaces and .,+@=~:()[]_- "
                "that begin with a letter or a digit"
            )


def _make_folder(workspace: Workspace) -> None:
    file = workspace.database
    folder = workspace.root if file is None else file.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"workspace {folder} cannot be made: {error.strerror}") from error


def _stored(key: str, value: Any) -> Any:
    if key not in tables.runs.c:
        raise DissectError(f"a run has no {key!r}")
    if key in _OBJECTS:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, default=str)
    return value


def _run_values(run: RunRecord) -> dict[str, Any]:
    return {field.name: _stored(field.name, getattr(run, field.name)) for field in fields(run)}


def _run_record(row: Row[Any]) -> RunRecord:
    return RunRecord(**{key: json.loads(value) if key in _OBJECTS else value for key, value in row._asdict().items()})


def _insert_records(connection: Connection, table: Table, run_id: str, records: Iterable[Any]) -> None:
    rows = []
    for record in records:
        row = asdict(record) | {"run_id": run_id}
        if "synonyms" in row:
            row["synonyms"] = json.dumps(row["synonyms"], ensure_ascii=False)
        rows.append(row)
    if rows:
        connection.execute(insert(table), rows)


def _insert_layer(connection: Connection, run_id: str, position: int, layer: LayerRecord) -> None:
    units, count = layer.units, len(layer.units.threshold)
    row = {field.name: getattr(layer, field.name) for field in fields(StoredLayer) if hasattr(layer, field.name)}
    row |= {"run_id": run_id, "position": position, "units": count}
    layer_id = connection.execute(insert(tables.layers).values(**row)).inserted_primary_key[0]  # type: ignore[index]
    everyone = np.arange(count)
    columns = {"layer_id": layer_id, "unit": everyone} | vars(units)
    columns["label"] = [
        label if label or iou > 0 else None for label, iou in zip(units.label.tolist(), units.iou.tolist())
    ]
    columns["area"] = [None if area < 0 else area for area in units.area.tolist()]
    bulk.insert(connection, tables.units, columns, count)
    kinds = layer.unit_areas.shape[1]
    areas = {
        "layer_id": layer_id,
        "unit": np.repeat(everyone, kinds),
        "category": np.tile(np.arange(kinds), count),
        "area": layer.unit_areas.reshape(-1),
    }
    bulk.insert(connection, tables.unit_areas, areas, count * kinds)
    scores = layer.scores
    order = np.lexsort((scores.rank, scores.unit))
    pairs = {"layer_id": layer_id} | {name: _ordered(getattr(scores, name), order) for name in _SCORE_KINDS}
    bulk.insert(connection, tables.scores, pairs, len(order))
    found = layer.exemplars
    order = np.lexsort((found.rank, found.unit))
    images = {"layer_id": layer_id} | {name: np.asarray(getattr(found, name))[order] for name in _EXEMPLAR_KINDS}
    bulk.insert(connection, tables.exemplars, images, len(order))


def _ordered(column: np.ndarray | None, order: np.ndarray) -> np.ndarray | None:
    return None if column is None else column[order]


def _clear(connection: Connection, run_id: str) -> None:
    """Remove what a run found; its own row stays."""
    ids = connection.execute(select(tables.layers.c.id).where(tables.layers.c.run_id == run_id)).scalars().all()
    for table in (tables.scores, tables.exemplars, tables.unit_areas, tables.units):
        if ids:
            connection.execute(delete(table).where(table.c.layer_id.in_(ids)))
    for table in (tables.layers, tables.concepts, tables.categories, tables.excluded, tables.artifacts):
        connection.execute(delete(table).where(table.c.run_id == run_id))
