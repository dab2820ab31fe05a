"""A workspace with two runs of two layers, shared by the tests of queries."""

from pathlib import Path

import pytest

from dissect.store import ConceptRecord
from tests.dissect.store import makers

NAMES = [
    "dog", "cat", "wheel", "grass", "street-s", "red-c", "couch", "tree", "sky", "wood", "kitchen-s", "blue-c", "lined",
    "dotted", "car", "nose",
]  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("workspace")
    with makers.open_store(place) as store:
        makers.save(
            store, makers.run_record("a" * 64, "first"), units=40, concepts=16, layers=("conv", "fc"), names=NAMES
        )
        makers.save(store, makers.run_record("b" * 64), units=40, concepts=16, layers=("conv",), names=NAMES, seed=7)
        store.begin_run(makers.run_record("c" * 64, "unfinished"))
    return place


@pytest.fixture
def synonyms(tmp_path: Path) -> Path:
    """A workspace whose concept couch is also called sofa and settee."""
    with makers.open_store(tmp_path) as store:
        known = [
            ConceptRecord(1, "couch", 1, 900, synonyms=("sofa", "settee")),
            ConceptRecord(2, "Dog", 1, 900, synonyms=("hound",)),
            ConceptRecord(3, "wall", 1, 900),
        ]
        layer = makers.layer_record("conv", makers.counts_of(6, known))
        store.begin_run(makers.run_record())
        store.finish_run("a" * 64, [layer], known, makers.category_records())
    return tmp_path
