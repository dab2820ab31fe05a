"""Rows of concepts, images and runs."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Select, and_, func, select

from dissect.store import tables
from dissect.store.filters import ConceptFilter, ImageFilter
from dissect.store.records import RunRecord
from dissect.store.scope import Scope, ScopedLayer
from dissect.store.store import Store

CONCEPT_COLUMNS = (
    "run", "run_name", "layer", "concept", "category", "area", "images", "units", "detectors", "best_iou", "best_unit",
)  # fmt: skip
IMAGE_COLUMNS = (
    "run", "run_name", "layer", "unit", "concept", "rank", "image", "image_position", "activation", "row", "column",
)  # fmt: skip
EXCLUDED_COLUMNS = ("run", "run_name", "image_position", "image", "reason")
RUN_COLUMNS = (
    "run", "name", "state", "model", "source", "convention", "data", "split", "images", "excluded_images", "layers",
    "units", "detectors", "unique_detectors", "unique_concepts", "created_at", "finished_at", "error",
)  # fmt: skip
_CHUNK = 5_000

Row = tuple[Any, ...]


def concept_rows(store: Store, wanted: ConceptFilter) -> Iterator[Row]:
    """CONCEPT_COLUMNS, one row per layer and concept: best IoU descending, then name. Raises SpecError."""
    scope = Scope(store, wanted.runs, wanted.layers, wanted.concepts, wanted.categories, wanted.search)
    found = []
    for scoped in scope.layers:
        counted = _counted(store, scoped)
        for number, concept in scoped.catalogue.concepts.items():
            if concept.name is None or (scoped.numbers is not None and number not in scoped.numbers):
                continue
            units, detectors, best_iou, best_unit = counted.get(number, (0, 0, None, None))
            if wanted.min_iou is not None and (best_iou is None or best_iou < wanted.min_iou):
                continue
            if wanted.detectors and not detectors:
                continue
            names = (concept.name, scoped.catalogue.categories[concept.category], concept.area, concept.images)
            row = (scoped.run.id, scoped.run.name, scoped.layer.name, *names, units, detectors, best_iou, best_unit)
            found.append(((-(best_iou or 0.0), concept.name, scoped.order), row))
    found.sort(key=lambda item: item[0])
    return (row for _, row in found)


def _counted(store: Store, scoped: ScopedLayer) -> dict[int, tuple[int, int, float | None, int | None]]:
    """By concept number: units with it as label, those of them that are detectors, best IoU and best unit."""
    units, pairs = tables.units.c, tables.scores.c
    cut = func.count().filter(units.iou > scoped.layer.cut)
    labels = select(units.label, func.count(), cut).where(units.layer_id == scoped.layer.id).group_by(units.label)
    numbers = select(tables.concepts.c.number).where(tables.concepts.c.run_id == scoped.run.id)
    best = select(pairs.concept, pairs.iou, pairs.unit).where(
        pairs.layer_id == scoped.layer.id, pairs.concept.in_(numbers), pairs.concept_rank == 1
    )
    with store.reading() as connection:
        counted = {row[0]: (row[1], row[2]) for row in connection.execute(labels)}
        top = {row[0]: (row[1], row[2]) for row in connection.execute(best)}
    return {
        number: (*counted.get(number, (0, 0)), *top.get(number, (None, None))) for number in scoped.catalogue.concepts
    }


def image_rows(store: Store, wanted: ImageFilter, limit: int | None = None) -> tuple[Sequence[str], Iterator[Row]]:
    """Exemplars (IMAGE_COLUMNS), largest activation first, or what was set aside (EXCLUDED_COLUMNS), the first `limit`
    of them. Raises SpecError."""
    scope = Scope(store, wanted.runs, wanted.layers, wanted.concepts)
    part = wanted.image.casefold() if wanted.image else ""
    if wanted.excluded:
        found = (
            (run.id, run.name, item.position, item.file, item.reason)
            for run in scope.runs
            for item in store.excluded(run.id)
            if part in item.file.casefold()
        )
        return EXCLUDED_COLUMNS, islice(found, limit)
    streams = [_exemplars(store, wanted, scoped, part, limit) for scoped in scope.layers]
    merged = heapq.merge(*streams, key=lambda item: item[0])
    return IMAGE_COLUMNS, islice((row for _, row in merged), limit)


def _exemplars(
    store: Store, wanted: ImageFilter, scoped: ScopedLayer, part: str, limit: int | None
) -> Iterator[tuple[tuple[Any, ...], Row]]:
    shown, units = tables.exemplars.c, tables.units.c
    owner = and_(units.layer_id == shown.layer_id, units.unit == shown.unit)
    query: Select[Any] = select(
        shown.unit, units.label, shown.rank, shown.image, shown.image_position, shown.activation, shown.row,
        shown.column,
    ).select_from(tables.exemplars.join(tables.units, owner))  # fmt: skip
    query = query.where(shown.layer_id == scoped.layer.id)
    if wanted.units:
        query = query.where(shown.unit.in_(sorted(wanted.units)))
    if scoped.numbers is not None:
        query = query.where(units.label.in_(sorted(scoped.numbers)))
    query = query.order_by(func.coalesce(shown.activation, 0.0).desc(), shown.unit, shown.rank)
    rows: list[tuple[tuple[Any, ...], Row]] = []
    with store.reading() as connection:
        cursor: Any = connection.execute(query).cursor
        while (found := cursor.fetchmany(_CHUNK)) and (limit is None or len(rows) < limit):
            for unit, label, rank, image, position, activation, row, column in found:
                if part in image.casefold():
                    names = (scoped.run.id, scoped.run.name, scoped.layer.name, unit, scoped.catalogue.names(label)[0])
                    key = (-(activation if activation is not None else 0.0), unit, scoped.order, rank)
                    rows.append((key, (*names, rank, image, position, activation, row, column)))
    return iter(rows)


def run_rows(store: Store, runs: Sequence[RunRecord] | None = None) -> list[Row]:
    """RUN_COLUMNS, one row per run, oldest first. units and detectors are sums over layers."""
    layers = tables.layers.c
    sums = [func.sum(layers[name]) for name in ("units", "detectors", "unique_detectors", "unique_concepts")]
    query = select(layers.run_id, func.count(), *sums).group_by(layers.run_id)
    with store.reading() as connection:
        counted = {row[0]: tuple(int(value) for value in row[1:]) for row in connection.execute(query)}
    return [
        (
            run.id, run.name, run.state, run.model, run.source, run.convention, run.data_name, run.split, run.images,
            run.excluded_images, *counted.get(run.id, (0, 0, 0, 0, 0)), run.created_at, run.finished_at, run.error,
        )
        for run in (store.runs() if runs is None else runs)
    ]  # fmt: skip
