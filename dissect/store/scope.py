"""From names to numbers: which layers a question is about and which concept numbers its names mean in each run."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from sqlalchemy import select

from dissect.errors import SpecError
from dissect.store import tables
from dissect.store.records import FINISHED, RunRecord, StoredLayer
from dissect.store.store import Store
from dissect.suggest import near, suggestion


class Listed(NamedTuple):
    """A concept as queries need it; synonyms is JSON text, read only when a name is not found."""

    number: int
    name: str | None
    category: int
    area: int
    images: int | None
    synonyms: str

    @property
    def words(self) -> list[str]:
        """Its name and synonyms."""
        return [word for word in (self.name, *json.loads(self.synonyms)) if word]


class Catalogue:
    """Concepts of one run by number, with the names of their categories."""

    def __init__(self, store: Store, run_id: str) -> None:
        table = tables.concepts.c
        query = select(*(table[name] for name in Listed._fields)).where(table.run_id == run_id).order_by(table.number)
        with store.reading() as connection:
            rows = connection.execute(query).cursor.fetchall()
        self.concepts = {row[0]: Listed(*row) for row in rows}
        categories = store.categories(run_id)
        self.categories = {category.index: category.name for category in categories}
        self.pixels = {category.index: category.pixels for category in categories}

    def names(self, number: int | None) -> tuple[str | None, str | None]:
        """Concept and category of a number; (None, None) for none."""
        concept = self.concepts.get(number) if number is not None else None
        return (None, None) if concept is None else (concept.name, self.categories[concept.category])

    @cached_property
    def by_name(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for concept in self.concepts.values():
            if concept.name is not None:
                found.setdefault(concept.name, []).append(concept.number)
        return found

    @cached_property
    def by_synonym(self) -> dict[str, list[int]]:
        """Case-folded names and synonyms."""
        found: dict[str, list[int]] = {}
        for concept in self.concepts.values():
            for name in {word.casefold() for word in concept.words}:
                found.setdefault(name, []).append(concept.number)
        return found


@dataclass(frozen=True)
class ScopedLayer:
    """A layer that is asked about. order is its place among all of them; numbers are the concepts wanted (None =
    all, and rows without one too)."""

    order: int
    run: RunRecord
    layer: StoredLayer
    catalogue: Catalogue
    numbers: frozenset[int] | None


class Scope:
    """Runs, layers and concepts that a filter names. Raises SpecError for a name that exists nowhere, with what is
    near it."""

    def __init__(
        self,
        store: Store,
        runs: Sequence[str] = (),
        layers: Sequence[str] = (),
        concepts: Sequence[str] = (),
        categories: Sequence[str] = (),
        search: str | None = None,
    ) -> None:
        self.runs = self._runs(store, runs)
        self.catalogues = {run.id: Catalogue(store, run.id) for run in self.runs}
        found = [(run, layer) for run in self.runs for layer in store.layers(run.id)]
        self._check("layer", layers, {layer.name for _, layer in found})
        everything = self.catalogues.values()
        self._check("category", categories, {name for item in everything for name in item.categories.values()})
        meant = self._concepts(concepts)
        self.layers: list[ScopedLayer] = []
        for run, layer in found:
            if layers and layer.name not in layers:
                continue
            numbers = self._numbers(self.catalogues[run.id], meant, categories, search)
            self.layers.append(ScopedLayer(len(self.layers), run, layer, self.catalogues[run.id], numbers))

    @staticmethod
    def _runs(store: Store, names: Sequence[str]) -> list[RunRecord]:
        if not names:
            return store.runs(FINISHED)
        runs = {run.id: run for run in (store.get_run(name) for name in names)}
        for run in runs.values():
            if run.state not in FINISHED:
                raise SpecError(f"run {run.title!r} is {run.state}: only finished and imported runs have rows")
        return list(runs.values())

    def _check(self, kind: str, names: Iterable[str], known: set[str]) -> None:
        for name in names:
            if name not in known and self.runs:
                raise SpecError(f"no {kind} {name!r} in these runs{suggestion(name, sorted(known))}")

    def _concepts(self, names: Sequence[str]) -> list[str]:
        """Names as the data sets write them. A name that no run has may be a synonym or differ in case."""
        meant = []
        for name in names:
            if any(name in catalogue.by_name for catalogue in self.catalogues.values()):
                meant.append(name)
                continue
            same = {
                catalogue.concepts[number].name
                for catalogue in self.catalogues.values()
                for number in catalogue.by_synonym.get(name.casefold(), ())
            }
            if not same and self.runs:
                raise SpecError(f"no concept {name!r} in these runs{self._near(name)}")
            meant += sorted(word for word in same if word)
        return meant

    def _near(self, name: str) -> str:
        owners: dict[str, str] = {}
        for catalogue in self.catalogues.values():
            for concept in catalogue.concepts.values():
                for word in concept.words if concept.name else ():
                    owners.setdefault(word, str(concept.name))
        close = list(dict.fromkeys(owners[word] for word in near(name, list(owners))))
        return f": did you mean {', '.join(close)}?" if close else ": `dissect query concepts` lists them"

    @staticmethod
    def _numbers(
        catalogue: Catalogue, names: Sequence[str], categories: Sequence[str], search: str | None
    ) -> frozenset[int] | None:
        if not names and not categories and not search:
            return None
        wanted = set(catalogue.concepts)
        if names:
            wanted &= {number for name in names for number in catalogue.by_name.get(name, ())}
        if categories:
            kinds = {index for index, name in catalogue.categories.items() if name in categories}
            wanted = {number for number in wanted if catalogue.concepts[number].category in kinds}
        if search:
            part = search.casefold()
            wanted = {number for number in wanted if part in (catalogue.concepts[number].name or "").casefold()}
        return frozenset(wanted)
