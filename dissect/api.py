"""Dissections from Python.

import dissect
work = dissect.open("dissections")
work.units(concept="dog", min_iou=0.04).to_pandas()
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from dissect.query import diff, grammar
from dissect.query.result import Result
from dissect.store import RunRecord, Store
from dissect.store.filters import ConceptFilter, ImageFilter, UnitFilter
from dissect.store.other_rows import CONCEPT_COLUMNS, RUN_COLUMNS, concept_rows, image_rows, run_rows
from dissect.store.sql import ROWS, SECONDS, read_only_sql
from dissect.store.unit_rows import COLUMNS, UnitRows
from dissect.workspace import DEFAULT, Workspace

if TYPE_CHECKING:
    from dissect.publish import Card

_MANY = {"run": "runs", "layer": "layers", "unit": "units", "concept": "concepts", "category": "categories"}


def open(workspace: str | os.PathLike[str] = DEFAULT, db: str | None = None) -> "Dissections":
    """The dissections of a workspace, for reading. Raises SpecError where there is no database."""
    found = Dissections(Workspace.at(workspace, db))
    with found.store():
        return found


class Dissections:
    """Read-only view of a workspace. Filters are keyword arguments named as on the command line (run, layer, unit,
    concept, category, min_iou, max_iou, rank, detectors, search, state, complete), a single value or a sequence;
    rank=None or "all" gives every stored pair."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The store behind it, open for reading."""
        with Store.open(self.workspace, readonly=True) as store:
            yield store

    def runs(self) -> Result:
        """All runs, oldest first."""
        with self.store() as store:
            return Result(RUN_COLUMNS, run_rows(store))

    def run(self, id_or_name: str) -> RunRecord:
        """One run with its provenance. Raises SpecError."""
        with self.store() as store:
            return store.get_run(id_or_name)

    def units(self, *, top: int | None = None, **filters: Any) -> Result:
        """Rows of the unit x concept table, as `dissect query units` gives them. Raises SpecError."""
        with self.store() as store:
            return Result(COLUMNS, list(UnitRows(store, _filter(UnitFilter, filters)).rows(limit=top)))

    def page(self, limit: int = 100, after: str | None = None, **filters: Any) -> Result:
        """A page of `units`; its `next` is the `after` of the page that follows. Raises SpecError."""
        wanted = _filter(UnitFilter, filters)
        key = None if after is None else grammar.read_token(after, wanted)
        with self.store() as store:
            rows, last = UnitRows(store, wanted).page(limit, key)
        return Result(COLUMNS, rows, None if last is None else grammar.page_token(last, wanted))

    def concepts(self, *, top: int | None = None, **filters: Any) -> Result:
        """Rows of the concept table, as `dissect query concepts` gives them. Raises SpecError."""
        with self.store() as store:
            return Result(CONCEPT_COLUMNS, list(islice(concept_rows(store, _filter(ConceptFilter, filters)), top)))

    def images(self, *, top: int | None = None, **filters: Any) -> Result:
        """Exemplars or excluded images, as `dissect query images` gives them. Raises SpecError."""
        with self.store() as store:
            columns, rows = image_rows(store, _filter(ImageFilter, filters))
            return Result(tuple(columns), list(islice(rows, top)))

    def sql(self, statement: str, seconds: float = SECONDS, rows: int = ROWS) -> Result:
        """A SELECT of your own. Raises SpecError, RetryLater where it takes too long."""
        with self.store() as store:
            table = read_only_sql(store, statement, seconds, rows)
        return Result(table.columns, table.rows)

    def diff(self, one: str, other: str, *, units: bool = False, layer: str | Sequence[str] = ()) -> Result:
        """What two runs say differently, by concept or unit by unit. Raises SpecError."""
        layers = (layer,) if isinstance(layer, str) else tuple(layer)
        with self.store() as store:
            if units:
                return Result(diff.UNIT_COLUMNS, list(diff.diff_units(store, one, other, layers)))
            return Result(diff.CONCEPT_COLUMNS, list(diff.diff_concepts(store, one, other, layers)))

    def card(self, run: str, layer: str, unit: int, data: str | os.PathLike[str] | None = None) -> "Card":
        """A unit's card, which a notebook shows; `data` is the concept data, for pictures, where it has moved since.
        Raises SpecError."""
        from dissect.publish import card

        with self.store() as store:
            return card(store, run, layer, unit, None if data is None else os.fspath(data))

    def counts(self, run: str, layer: str) -> np.ndarray:
        """The memory-mapped complete counts [U, L] int64 of a layer. Raises SpecError where there are none."""
        with self.store() as store:
            return store.counts(store.layer(store.get_run(run).id, layer))

    def _repr_html_(self) -> str:
        return self.runs()._repr_html_()


def _filter(kind: type[Any], given: dict[str, Any]) -> Any:
    """A filter from Python values, by way of the same grammar as everywhere."""
    texts: dict[str, list[str]] = {}
    for name, value in given.items():
        if name == "rank" and value is None:
            value = "all"
        if value is None:
            continue
        several = list(value) if name in _MANY and not isinstance(value, str | int) else [value]
        texts[name] = [_text(item) for item in several]
    return grammar.from_text(kind, texts)


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)
