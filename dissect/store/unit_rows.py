"""Rows of the unit x concept table in their order: IoU descending, unit, run and layer, rank.

Every layer is read in chunks by key, never by offset, each chunk in a transaction of its own; layers are merged. So
the last row costs what the first does, and a reader of a million rows never holds a writer up.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from dissect import measures, scores
from dissect.errors import SpecError
from dissect.store import tables
from dissect.store.deadline import deadline
from dissect.store.filters import Key, UnitFilter
from dissect.store.records import UnitTable
from dissect.store.scope import Scope, ScopedLayer
from dissect.store.store import Store

COLUMNS = (
    "run", "run_name", "layer", "unit", "concept", "category", "iou", "intersection", "unit_area", "concept_area",
    "threshold", "rank", "dead", "saturated", "nonfinite", "iou_low", "iou_high", "stability", "p_value", "q_value",
    "iou_null", "precision", "recall", "f1", "phi", "iqr", "ap",
)  # fmt: skip
CHUNK = 5_000
_FEW = 8  # concepts that are worth going through the index by concept
_PAIRS_AT_ONCE = 4 << 20

Row = tuple[Any, ...]


@dataclass(frozen=True)
class _Start:
    """Where one layer goes on: strictly after (iou, unit, rank)."""

    iou: float
    unit: int
    rank: int


class UnitRows:
    """The answer to a filter: iterate over `rows()`, or ask for a page or for facets.

    Raises SpecError for names that do not exist and for questions that cannot be answered.
    """

    def __init__(self, store: Store, wanted: UnitFilter) -> None:
        if wanted.rank is not None and wanted.rank < 1:
            raise SpecError(f"rank {wanted.rank} is not possible: expected 1 (the label), 2 … or all")
        if wanted.complete and not (wanted.concepts or wanted.units):
            raise SpecError("complete pairs fill gigabytes: name the concepts or the units to be complete about")
        self.store, self.filter = store, wanted
        self.scope = Scope(store, wanted.runs, wanted.layers, wanted.concepts, wanted.categories, wanted.search)

    def rows(self, after: Key | None = None, limit: int | None = None) -> Iterator[Row]:
        """Rows as tuples of COLUMNS."""
        return (row for _, row in self._keyed(after, limit))

    def page(self, limit: int, after: Key | None = None) -> tuple[list[Row], Key | None]:
        """Up to `limit` rows and the key of the last one if there are more."""
        found = list(self._keyed(after, limit + 1))
        more = len(found) > limit
        return [row for _, row in found[:limit]], self._key(found[limit - 1]) if more else None

    def facets(self, seconds: float = 0.2) -> dict[str, list[tuple[str | None, int]]] | None:
        """How many rows each run, layer, category and concept has, most first; None where the time is too short."""
        counts: dict[str, dict[str | None, int]] = {"run": {}, "layer": {}, "category": {}, "concept": {}}
        with deadline(self.store, seconds) as run:
            for scoped in self.scope.layers:
                found = run(self._grouped(scoped))
                if found is None:
                    return None
                for number, count in found:
                    concept, category = scoped.catalogue.names(number)
                    for name, value in (
                        ("run", scoped.run.title), ("layer", scoped.layer.name), ("category", category),
                        ("concept", concept),
                    ):  # fmt: skip
                        counts[name][value] = counts[name].get(value, 0) + count
        return {
            name: sorted(found.items(), key=lambda item: (-item[1], item[0] is None, item[0] or ""))
            for name, found in counts.items()
        }

    # The order.

    def _keyed(self, after: Key | None, limit: int | None) -> Iterator[tuple[tuple[Any, ...], Row]]:
        chunk = CHUNK if limit is None else min(CHUNK, limit)
        source = self._complete if self.filter.complete else self._stored
        place = None
        if after is not None:
            place = next((item.order for item in self.scope.layers if item.layer.id == after.layer), None)
            if place is None:
                raise SpecError("the page token belongs to other runs or layers: begin again without it")
        streams = []
        for scoped in self.scope.layers:
            if scoped.numbers is not None and not scoped.numbers:
                continue
            streams.append(source(scoped, _start(after, place, scoped.order), chunk))
        merged = streams[0] if len(streams) == 1 else heapq.merge(*streams, key=lambda item: item[0])
        return islice(merged, limit) if limit is not None else iter(merged)

    def _key(self, found: tuple[tuple[Any, ...], Row]) -> Key:
        (negative, unit, order, rank), _ = found
        return Key(-negative, unit, self.scope.layers[order].layer.id, rank)

    # Stored pairs.

    def _stored(self, scoped: ScopedLayer, start: _Start | None, chunk: int) -> Iterator[tuple[tuple[Any, ...], Row]]:
        while True:
            found: list[Any] = []
            with self.store.reading() as connection:
                for query in self._after(start):
                    if left := chunk - len(found):
                        found += connection.execute(self._select(scoped, query, left)).cursor.fetchall()
            for row in found:
                unit, number, iou, meeting, unit_area, concept_area, threshold, rank, dead, saturated, bad, *more = row
                concept, category = scoped.catalogue.names(number)
                yield (
                    (-iou, unit, scoped.order, rank),
                    (
                        scoped.run.id, scoped.run.name, scoped.layer.name, unit, concept, category, iou, meeting,
                        unit_area, concept_area, threshold, rank, dead, saturated, int(bad > 0), *more[:-3],
                        *_ratios(meeting, unit_area, concept_area), *more[-3:],
                    ),
                )  # fmt: skip
            if len(found) < chunk:
                return
            start = _Start(found[-1][2], found[-1][0], found[-1][7])

    @property
    def _table(self) -> Any:
        return tables.units if self.filter.rank == 1 else tables.scores

    def _after(self, start: _Start | None) -> list[ColumnElement[bool] | None]:
        """The rest of the order as one or two plain index ranges: equal IoU first, then smaller."""
        if start is None:
            return [None]
        columns = self._table.c
        if self.filter.rank == 1:
            later = columns.unit > start.unit if start.rank >= 1 else columns.unit >= start.unit
        else:
            later = or_(columns.unit > start.unit, and_(columns.unit == start.unit, columns.rank > start.rank))
        return [and_(columns.iou == start.iou, later), columns.iou < start.iou]

    def _select(self, scoped: ScopedLayer, after: ColumnElement[bool] | None, limit: int) -> Select[Any]:
        """The next rows. `+ 0` on the order makes SQLite sort the few rows of a unit or concept instead of walking
        the whole order."""
        units, pairs = tables.units.c, tables.scores.c
        columns = self._table.c
        iou = columns.iou + 0 if self.filter.units or self._few(scoped) else columns.iou
        order = [iou.desc(), columns.unit] + ([] if self.filter.rank == 1 else [columns.rank])
        inner = select(self._table).where(*self._conditions(scoped)).order_by(*order).limit(limit)
        if after is not None:
            inner = inner.where(after)
        found = inner.subquery("found").c
        if self.filter.rank == 1:
            label = and_(
                pairs.layer_id == found.layer_id, pairs.unit == found.unit, pairs.rank == 1, found.label.is_not(None)
            )
            integers = [
                func.coalesce(column, 0) for column in (pairs.intersection, pairs.unit_area, pairs.concept_area)
            ]
            query = select(
                found.unit, found.label, found.iou, *integers, found.threshold, 1, found.dead, found.saturated,
                found.nonfinite, pairs.iou_low, pairs.iou_high, found.stability, found.p_value, found.q_value,
                found.iou_null, pairs.phi, pairs.iqr, pairs.ap,
            ).select_from(found.unit.table.outerjoin(tables.scores, label))  # fmt: skip
            return query.order_by(found.iou.desc(), found.unit)
        query = select(
            found.unit, found.concept, found.iou, found.intersection, found.unit_area, found.concept_area,
            units.threshold, found.rank, units.dead, units.saturated, units.nonfinite, found.iou_low, found.iou_high,
            units.stability, units.p_value, units.q_value, units.iou_null, found.phi, found.iqr, found.ap,
        )  # fmt: skip
        owner = and_(units.layer_id == found.layer_id, units.unit == found.unit)
        query = query.select_from(found.unit.table.outerjoin(tables.units, owner))
        return query.order_by(found.iou.desc(), found.unit, found.rank)

    def _few(self, scoped: ScopedLayer) -> bool:
        """Whether the concepts wanted are so few that the index by concept is the way in."""
        return scoped.numbers is not None and len(scoped.numbers) <= _FEW

    def _conditions(self, scoped: ScopedLayer) -> list[ColumnElement[bool]]:
        wanted, columns, units = self.filter, self._table.c, tables.units.c
        number = columns.label if wanted.rank == 1 else columns.concept
        found: list[ColumnElement[bool]] = [columns.layer_id == scoped.layer.id]
        if wanted.units:
            found.append(columns.unit.in_(sorted(wanted.units)))
        if scoped.numbers is not None:
            # Many concepts are filtered along the order of IoU rather than collected and sorted: + 0 hides their index.
            found.append((number if self._few(scoped) else number + 0).in_(sorted(scoped.numbers)))
        if wanted.min_iou is not None:
            found.append(columns.iou >= wanted.min_iou)
        if wanted.max_iou is not None:
            found.append(columns.iou <= wanted.max_iou)
        if wanted.detectors:
            found.append(columns.iou > scoped.layer.cut)
        if wanted.rank not in (None, 1):
            found.append(columns.rank == wanted.rank)
        if wanted.state is not None:
            odd = (units.dead, units.saturated, units.nonfinite)
            state = [flag == 0 for flag in odd] if wanted.state == "sound" else [units[wanted.state] > 0]
            if wanted.rank == 1:
                found += state
            else:
                owner = and_(units.layer_id == columns.layer_id, units.unit == columns.unit)
                found.append(select(1).select_from(tables.units).where(owner, *state).correlate(tables.scores).exists())
        return found

    def _grouped(self, scoped: ScopedLayer) -> Select[Any]:
        columns = self._table.c
        number = columns.label if self.filter.rank == 1 else columns.concept
        return select(number, func.count()).where(*self._conditions(scoped)).group_by(number)

    # Every pair, from the counts.

    def _complete(
        self, scoped: ScopedLayer, start: _Start | None, _chunk: int
    ) -> Iterator[tuple[tuple[Any, ...], Row]]:
        found = [item for item in self._pairs(scoped) if start is None or _later(item[0], start)]
        found.sort(key=lambda item: item[0])
        return iter(found)

    def _pairs(self, scoped: ScopedLayer) -> Iterator[tuple[tuple[Any, ...], Row]]:
        wanted, layer = self.filter, scoped.layer
        stored = _Stored(self.store.scores(layer))
        table, areas, meeting = self.store.units(layer), self.store.unit_areas(layer), self.store.counts(layer)
        numbers = np.array(sorted(scoped.catalogue.concepts), np.int64)
        concept_area = np.array([scoped.catalogue.concepts[number].area for number in numbers.tolist()], np.int64)
        category = np.array([scoped.catalogue.concepts[number].category for number in numbers.tolist()], np.int64)
        pixels = np.array([scoped.catalogue.pixels[k] or np.nan for k in category.tolist()])
        at = (
            np.flatnonzero(np.isin(numbers, list(scoped.numbers)))
            if scoped.numbers is not None
            else np.arange(len(numbers))
        )
        units = np.array(sorted(set(wanted.units)), np.int64) if wanted.units else np.arange(layer.units)
        units = units[(units >= 0) & (units < layer.units)]
        units = units[_in_state(table, wanted.state)[units]]
        low = -1.0 if wanted.min_iou is None else wanted.min_iou
        high = 2.0 if wanted.max_iou is None else wanted.max_iou
        step = max(1, _PAIRS_AT_ONCE // max(1, len(numbers)))
        for first in range(0, len(units), step):
            block = units[first : first + step]
            common, area = meeting[block][:, numbers], areas[block][:, category]
            iou = scores.iou(common, area, concept_area)
            rank = _ranks(iou, at, category)
            cells = common[:, at], area[:, at], concept_area[at], pixels[at]
            phi, iqr = measures.phi(*cells), measures.iqr(*cells)
            keep = (iou[:, at] >= low) & (iou[:, at] <= high)
            if wanted.detectors:
                keep &= iou[:, at] > layer.cut
            if wanted.rank is not None:
                keep &= rank == wanted.rank
            for row, column in zip(*keep.nonzero()):
                unit, place = int(block[row]), at[column]
                value, names = float(iou[row, place]), scoped.catalogue.names(int(numbers[place]))
                integers = int(common[row, place]), int(area[row, place]), int(concept_area[place])
                yield (
                    (-value, unit, scoped.order, int(rank[row, column])),
                    (
                        scoped.run.id, scoped.run.name, layer.name, unit, *names, value, *integers,
                        _finite(table.threshold[unit]),
                        int(rank[row, column]), int(table.dead[unit]), int(table.saturated[unit]),
                        int(table.nonfinite[unit] > 0), *stored.interval(unit, int(numbers[place])),
                        *_trust(table, unit), *_ratios(*integers),
                        _finite(phi[row, column]), _finite(iqr[row, column]),
                        *stored.precision(unit, int(numbers[place])),
                    ),
                )  # fmt: skip


def _start(after: Key | None, place: int | None, order: int) -> _Start | None:
    """Where a layer goes on after a key: rows equal in IoU and unit follow if their layer comes later."""
    if after is None or place is None:
        return None
    if order == place:
        return _Start(after.iou, after.unit, after.rank)
    return _Start(after.iou, after.unit, 0 if order > place else 1 << 62)


def _later(key: tuple[Any, ...], start: _Start) -> bool:
    negative, unit, _, rank = key
    return (negative, unit, rank) > (-start.iou, start.unit, start.rank)


def _ranks(iou: np.ndarray, at: np.ndarray, category: np.ndarray) -> np.ndarray:
    """Ranks [B, len(at)] (1 = best) of the columns `at` among all concepts [B, C]; ties as in `scores.score_table`:
    the higher category index, then the lower number."""
    order = np.lexsort((np.arange(len(category)), -category))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    ranks = np.empty((len(iou), len(at)), np.int64)
    if len(at) <= _FEW:
        for column, one in enumerate(at):
            mine = iou[:, one, None]
            ranks[:, column] = 1 + (iou > mine).sum(1) + ((iou == mine) & (place < place[one])).sum(1)
        return ranks
    best = order[np.argsort(-iou[:, order], axis=1, kind="stable")]
    every = np.empty_like(best)
    np.put_along_axis(every, best, np.arange(1, len(order) + 1)[None], axis=1)
    ranks[:] = every[:, at]
    return ranks


def _in_state(table: UnitTable, state: str | None) -> np.ndarray:
    """bool [U]: the units in a state."""
    bad = table.nonfinite > 0
    if state is None:
        return np.ones(len(bad), bool)
    odd = {"dead": table.dead, "saturated": table.saturated, "nonfinite": bad}
    return ~(table.dead | table.saturated | bad) if state == "sound" else odd[state]


class _Stored:
    """What only stored pairs have, by unit and concept."""

    def __init__(self, pairs: scores.ScoreTable) -> None:
        self._pairs = pairs
        order = np.lexsort((pairs.concept, pairs.unit))
        self._order, self._unit, self._concept = order, pairs.unit[order], pairs.concept[order]

    def interval(self, unit: int, concept: int) -> list[float | None]:
        return self._of(unit, concept, self._pairs.iou_low, self._pairs.iou_high)

    def precision(self, unit: int, concept: int) -> list[float | None]:
        return self._of(unit, concept, self._pairs.ap)

    def _of(self, unit: int, concept: int, *columns: np.ndarray | None) -> list[float | None]:
        first, last = np.searchsorted(self._unit, [unit, unit + 1])
        at = first + np.searchsorted(self._concept[first:last], concept)
        if at >= last or self._concept[at] != concept:
            return [None] * len(columns)
        return [None if column is None else _finite(column[self._order[at]]) for column in columns]


def _trust(table: UnitTable, unit: int) -> list[float | None]:
    columns = (table.stability, table.p_value, table.q_value, table.iou_null)
    return [None if column is None else _finite(column[unit]) for column in columns]


def _ratios(meeting: int, unit_area: int, concept_area: int) -> tuple[float, float, float]:
    """Precision, recall and F1 of a pair, as the views have them."""
    return (
        meeting / unit_area if unit_area else 0.0,
        meeting / concept_area if concept_area else 0.0,
        2 * meeting / (unit_area + concept_area) if unit_area + concept_area else 0.0,
    )


def _finite(value: np.floating[Any]) -> float | None:
    return float(value) if np.isfinite(value) else None
