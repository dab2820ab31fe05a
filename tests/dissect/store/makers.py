"""Generated runs for tests of the store and of queries; the same seed gives the same records."""

from dataclasses import replace
from typing import Any

import numpy as np

from dissect import measures, scores
from dissect.store import (
    CategoryRecord,
    ConceptRecord,
    ExcludedRecord,
    ExemplarTable,
    LayerRecord,
    RunRecord,
    Store,
    UnitTable,
)
from dissect.workspace import Workspace

CATEGORIES = ("color", "object", "part", "material", "scene", "texture")
PIXELS = 10_000  # of the images of each category


def run_record(run_id: str = "a" * 64, name: str | None = None, **changes: Any) -> RunRecord:
    facts: dict[str, Any] = {
        "id": run_id, "name": name, "convention": "exact", "model": "tiny", "source": "demo", "data_name": "made",
        "data_fingerprint": "f" * 64, "images": 100, "label_h": 16, "label_w": 16, "spec": {"layers": ["conv"]},
        "provenance": {"torch": "2"}, "code_version": "0.1",
    }  # fmt: skip
    return RunRecord(**facts | changes)


def category_records() -> list[CategoryRecord]:
    return [CategoryRecord(index, name, PIXELS) for index, name in enumerate(CATEGORIES)]


def concept_records(count: int, seed: int = 0, names: list[str] | None = None) -> list[ConceptRecord]:
    """Concepts 1..count over the six categories in turn."""
    generator = np.random.default_rng(seed)
    areas = generator.integers(500, 5000, count)
    return [
        ConceptRecord(
            number + 1, names[number] if names else f"concept {number + 1}", number % 6, int(areas[number]), 10, 1.5, 7,
            (f"syn {number + 1}",),
        )
        for number in range(count)
    ]  # fmt: skip


def counts_of(units: int, concepts: list[ConceptRecord], seed: int = 1) -> scores.Counts:
    """Random counts with sparse meetings; units 0 (dead) and, of at least three, the last (non-finite) meet nothing."""
    generator = np.random.default_rng(seed)
    labels = max((concept.number for concept in concepts), default=0) + 1
    meeting = generator.integers(0, 400, (units, labels)) * (generator.random((units, labels)) < 0.6)
    meeting[:, 0] = 0
    if units > 1:
        meeting[0] = 0
    if units > 2:
        meeting[-1] = 0
    area = np.full((units, 6), 0, np.int64) + generator.integers(400, 3000, (units, 6))
    concept_area, primary = np.zeros(labels, np.int64), np.full(labels, -1, np.int64)
    for concept in concepts:
        concept_area[concept.number], primary[concept.number] = concept.area, concept.category
    return scores.Counts(meeting.astype(np.int64), area, concept_area, primary)


def layer_record(name: str, counts: scores.Counts, seed: int = 2, exemplars: int = 3, **changes: Any) -> LayerRecord:
    """A layer as the pipeline would hand it over. Unit 0 is dead, the last one (of at least three) non-finite."""
    generator = np.random.default_rng(seed)
    units = len(counts.area)
    table, labels = scores.score_table(counts), scores.label_units(counts)
    known = generator.random(len(table.unit)) < 0.8
    cells = table.intersection, table.unit_area, table.concept_area, np.array(PIXELS)
    table = replace(
        table, iou_low=np.where(known, table.iou * 0.9, np.nan), iou_high=np.where(known, table.iou * 1.1, np.nan),
        phi=measures.phi(*cells), iqr=measures.iqr(*cells), ap=np.where(known, table.iou / 4, np.nan),
    )  # fmt: skip
    stable = np.where(labels.label > 0, generator.random(units), np.nan)
    dead, nonfinite = np.zeros(units, bool), np.zeros(units, np.int64)
    dead[:1] = units > 1
    low, high = np.zeros(units, np.float32), generator.random(units).astype(np.float32) + 1
    if units > 2:
        nonfinite[-1], high[-1] = 5, np.nan
    columns = UnitTable(
        high * np.float32(0.9), low, high, high.astype(float) / 2, high.astype(float) / 3, dead, dead & False,
        nonfinite, generator.integers(0, 5000, units), labels.label, labels.iou,
        stable, stable / 2, stable / 3, stable / 4,
    )  # fmt: skip
    unit, rank = np.repeat(np.arange(units), exemplars), np.tile(np.arange(1, exemplars + 1), units)
    images = np.array([f"images/{i % 97}.jpg" for i in range(len(unit))], object)
    shown = ExemplarTable(
        unit, rank, np.arange(len(unit)) % 97, images, generator.random(len(unit)).astype(np.float32), rank, rank + 1
    )
    facts: dict[str, Any] = {
        "map_h": 7, "map_w": 5, "activations": 3500, "top_k": 17, "cut": 0.04,
        "detectors": int(labels.detectors(0.04).sum()), "unique_detectors": labels.unique_detectors(0.04),
        "unique_concepts": labels.unique_concepts(0.04), "units": columns, "unit_areas": counts.area,
        "scores": table, "exemplars": shown,
    }  # fmt: skip
    return LayerRecord(name, **facts | changes)


def save(
    store: Store,
    run: RunRecord | None = None,
    units: int = 8,
    concepts: int = 12,
    layers: tuple[str, ...] = ("conv",),
    names: list[str] | None = None,
    seed: int = 0,
) -> RunRecord:
    """Begin and finish a generated run with its counts files."""
    run = run or run_record()
    known = concept_records(concepts, seed, names)
    found = []
    for position, name in enumerate(layers):
        counts = counts_of(units, known, seed + position + 1)
        file = store.workspace.save_counts(run.id, position, counts.intersection)
        found.append(layer_record(name, counts, seed + 2, counts_file=file))
    store.begin_run(run)
    excluded = [ExcludedRecord(3, "images/3.jpg", "truncated")]
    return store.finish_run(run.id, found, known, category_records(), excluded, excluded_images=1)


def open_store(folder: Any) -> Store:
    return Store.open(Workspace.at(folder))
