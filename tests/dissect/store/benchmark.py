"""Sizes and times at the largest layer promised: `python -m tests.dissect.store.benchmark [DIR]`.

One run of 65,536 units x 1,197 concepts (1.3 million pairs by unit, 0.24 million more by concept, ten exemplars a
unit) is written and asked. Times are wall clock; the 50 ms of the promise are those of the first two questions.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dissect.scores import ScoreTable
from dissect.store import ExemplarTable, LayerRecord, Store, UnitTable
from dissect.store.filters import ConceptFilter, UnitFilter
from dissect.store.other_rows import concept_rows
from dissect.store.unit_rows import UnitRows
from tests.dissect.store import makers

UNITS, CONCEPTS = 65_536, 1_197


def large_layer() -> LayerRecord:
    """A layer with the right numbers of rows and consistent ranks; its counts mean nothing."""
    generator = np.random.default_rng(0)
    unit = np.concatenate([np.repeat(np.arange(UNITS), 20), generator.integers(0, UNITS, CONCEPTS * 200)])
    rank = np.concatenate([np.tile(np.arange(1, 21), UNITS), generator.integers(21, CONCEPTS, CONCEPTS * 200)])
    keep = np.unique(unit * 2000 + rank, return_index=True)[1]
    unit, rank = unit[keep], rank[keep]
    concept = (unit * 7 + rank * 11) % CONCEPTS + 1
    common = generator.integers(1, 10**5, len(unit))
    area, truth = common + generator.integers(1, 10**6, len(unit)), common + generator.integers(1, 10**7, len(unit))
    iou = common / (area + truth - common)
    order = np.lexsort((unit, -iou, concept))
    place = np.empty(len(unit), np.int64)
    place[order] = np.arange(len(unit)) - np.searchsorted(concept[order], concept[order]) + 1
    label, best = np.zeros(UNITS, np.int64), np.zeros(UNITS)
    label[unit[rank == 1]], best[unit[rank == 1]] = concept[rank == 1], iou[rank == 1]
    values, whole = generator.random(UNITS).astype(np.float32), np.zeros(UNITS, np.int64)
    units = UnitTable(values, values, values, values, values, whole > 0, whole > 0, whole, whole, label, best)
    shown = np.repeat(np.arange(UNITS), 10)
    images = np.array([f"ade20k/image_{i % 1000}.jpg" for i in range(len(shown))], object)
    exemplars = ExemplarTable(
        shown,
        np.tile(np.arange(1, 11), UNITS),
        shown % 1000,
        images,
        generator.random(len(shown)),
        shown % 14,
        shown % 14,
    )
    return LayerRecord(
        "sae", 14, 14, 10**6, 5000, 0.04, 1, 1, 1, units, generator.integers(0, 10**6, (UNITS, 6)),
        ScoreTable(unit, concept, rank, place, common, area, truth, iou), exemplars,
    )  # fmt: skip


def timed(name: str, work: Callable[[], Any]) -> Any:
    start, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall = time.perf_counter() - start
    print(f"{1000 * wall:10.1f} ms wall {1000 * (time.process_time() - cpu):10.1f} ms CPU   {name}")
    return result


def main(folder: str) -> None:
    layer, known = large_layer(), makers.concept_records(CONCEPTS)
    with makers.open_store(folder) as store:
        store.begin_run(makers.run_record())
        rows = len(layer.scores.unit)
        timed(
            f"finish_run, {rows} pairs", lambda: store.finish_run("a" * 64, [layer], known, makers.category_records())
        )
        print(f"{(Path(folder) / 'dissect.sqlite').stat().st_size / 1e6:10.1f} MB")
    with Store.open(folder, readonly=True) as store:

        def ask(**wanted: Any) -> UnitRows:
            return UnitRows(store, UnitFilter(**wanted))

        timed("top concepts of a unit", lambda: list(ask(units=(4242,), rank=None).rows(limit=20)))
        timed("top units of a concept", lambda: list(ask(concepts=("concept 77",), rank=None).rows(limit=200)))
        timed("first 20 labels", lambda: list(ask().rows(limit=20)))
        timed("labels of a category, first 200", lambda: list(ask(categories=("object",)).rows(limit=200)))
        timed("all labels", lambda: list(ask().rows()))
        timed("facets of all labels", lambda: ask().facets(10))
        timed("concepts", lambda: list(concept_rows(store, ConceptFilter())))
        pages, key = ask(rank=None), None
        _, key = timed("page 1 of 100 pairs", lambda: pages.page(100))
        for _ in range(998):
            _, key = pages.page(100, key)
        timed("page 1,000 of 100 pairs", lambda: pages.page(100, key))
        stored = store.layers("a" * 64)[0]
        for read in (store.units, store.unit_areas, store.exemplars, store.scores):
            timed(f"columns of {read.__name__}", lambda read=read: read(stored))  # type: ignore[misc]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(temporary)
