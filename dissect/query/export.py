"""Runs as files for other tools: the published CSV, plain tables, thresholds."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from dissect import golden, scores
from dissect.errors import SpecError
from dissect.store import RunRecord, Store, StoredLayer
from dissect.store.filters import ConceptFilter, UnitFilter
from dissect.store.other_rows import CONCEPT_COLUMNS, concept_rows
from dissect.store.unit_rows import COLUMNS, UnitRows

THRESHOLD_COLUMNS = ("layer", "unit", "threshold")
LAYER_COLUMNS = (
    "run", "run_name", "layer", "units", "map_h", "map_w", "activations", "top_k", "cut", "detectors",
    "unique_detectors", "unique_concepts",
)  # fmt: skip

Table = tuple[tuple[str, ...], Iterator[tuple[Any, ...]]]


def metadata(run: RunRecord) -> dict[str, str]:
    """What a Parquet or Arrow file says of its origin."""
    facts = ("id", "name", "model", "weights_sha256", "convention", "data_name", "data_fingerprint", "code_version")
    found = {f"dissect.{name}": str(getattr(run, name) or "") for name in facts}
    return found | {"dissect.spec": json.dumps(dict(run.spec), sort_keys=True)}


def one_layer(store: Store, run: RunRecord, name: str | None) -> StoredLayer:
    """The layer of that name, or the only one. Raises SpecError."""
    if name is not None:
        return store.layer(run.id, name)
    found = store.layers(run.id)
    if len(found) != 1:
        raise SpecError(
            f"run {run.title!r} has the layers {', '.join(layer.name for layer in found)}: choose one --layer"
        )
    return found[0]


def table(store: Store, run: RunRecord, what: str, layer: str | None) -> Table:
    """units (one row each), pairs (all that are stored), concepts or layers of a run. Raises SpecError."""
    layers = () if layer is None else (store.layer(run.id, layer).name,)
    if what == "concepts":
        return CONCEPT_COLUMNS, concept_rows(store, ConceptFilter(runs=(run.id,), layers=layers))
    if what == "layers":
        found = [item for item in store.layers(run.id) if not layers or item.name in layers]
        rows = ((run.id, run.name, item.name, *(getattr(item, name) for name in LAYER_COLUMNS[3:])) for item in found)
        return LAYER_COLUMNS, rows
    return COLUMNS, UnitRows(store, UnitFilter((run.id,), layers, rank=1 if what == "units" else None)).rows()


def thresholds(store: Store, run: RunRecord, layer: str | None) -> Table:
    """Every unit's threshold, as a float32's shortest exact decimal; empty where it is not finite. Raises SpecError."""
    found = [store.layer(run.id, layer)] if layer is not None else store.layers(run.id)

    def rows() -> Iterator[tuple[Any, ...]]:
        for item in found:
            for unit, value in enumerate(store.units(item).threshold):
                yield item.name, unit, str(value) if np.isfinite(value) else None

    return THRESHOLD_COLUMNS, rows()


def netdissect(store: Store, run: RunRecord, layer: str | None, unit_base: int | None) -> Iterator[str]:
    """Lines of the published result CSV of one layer; an imported file comes out as it went in. Raises SpecError."""
    chosen = one_layer(store, run, layer)
    written = run.provenance.get("style")
    if run.state == "imported" and written is not None:
        style = golden.style_of(dict(written))
        if unit_base is not None:
            style = golden.style_of(dict(written) | {"unit_base": unit_base})
        return golden.write(_imported_cells(store, run, chosen), style)
    cells = _counted_cells(store, run, chosen)
    return golden.write(cells, golden.Style.published(cells.categories, 1 if unit_base is None else unit_base))


def _imported_cells(store: Store, run: RunRecord, layer: StoredLayer) -> golden.Cells:
    categories = tuple(category.name for category in store.categories(run.id))
    concepts = {concept.number: concept for concept in store.concepts(run.id)}
    pairs, shape = store.scores(layer), (layer.units, len(categories))
    names = np.full(shape, "", object)
    truth, meeting = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    column = np.array([concepts[number].category for number in pairs.concept.tolist()], np.int64)
    names[pairs.unit, column] = [concepts[number].name or "" for number in pairs.concept.tolist()]
    truth[pairs.unit, column], meeting[pairs.unit, column] = pairs.concept_area, pairs.intersection
    return golden.Cells(categories, names, truth, store.unit_areas(layer), meeting)


def _counted_cells(store: Store, run: RunRecord, layer: StoredLayer) -> golden.Cells:
    """The best concept of each category from the complete counts; an empty label where nothing meets."""
    categories = tuple(category.name for category in store.categories(run.id))
    meeting = store.counts(layer)
    concept_area, primary = np.zeros(meeting.shape[1], np.int64), np.full(meeting.shape[1], -1, np.int64)
    names = np.full(meeting.shape[1], "", object)
    for concept in store.concepts(run.id):
        concept_area[concept.number], primary[concept.number] = concept.area, concept.category
        names[concept.number] = concept.name or ""
    areas = store.unit_areas(layer)
    best = scores.label_units(scores.Counts(meeting, areas, concept_area, primary)).best
    found = best > 0
    common = np.take_along_axis(meeting, best, axis=1)
    return golden.Cells(
        categories, np.where(found, names[best], ""), np.where(found, concept_area[best], 0), areas,
        np.where(found, common, 0),
    )  # fmt: skip
