"""Syntheses in the database: whole or not at all, replaced by id, told apart from runs, found by unit."""

from dataclasses import replace
from pathlib import Path

import pytest

from dissect.errors import SpecError
from dissect.store import syntheses
from dissect.store.syntheses import CellRecord, PictureRecord, SynthesisRecord
from tests.dissect.store import makers

MADE = SynthesisRecord(
    "a" * 64, "maximize", "demo", 7, {"optimiser": {"kind": "Adam"}}, {"where": "mean"}, "inversion/x"
)  # fmt: skip
PICTURES = [
    PictureRecord("maximum-impulse", "b.png", "0" * 64, "conv", 3, "unit 3", None, 0, -1.5, {"synthetic": 2.0}),
    PictureRecord("maximum-sheet", "a.png", "1" * 64),
]
CELLS = [CellRecord(0, 0.25, 3, b"\x00\xff"), CellRecord(1, 0.5, 1, b"")]


def test_what_goes_in_comes_out_in_the_order_of_making(tmp_path: Path) -> None:
    with makers.open_store(tmp_path) as store:
        syntheses.save(store, MADE, PICTURES, CELLS)
        (found,) = syntheses.every(store)
        assert replace(found, created_at="") == MADE
        assert syntheses.pictures(store, MADE.id) == PICTURES
        assert syntheses.cells(store, MADE.id) == CELLS


def test_the_same_synthesis_again_replaces_its_rows(tmp_path: Path) -> None:
    with makers.open_store(tmp_path) as store:
        syntheses.save(store, MADE, PICTURES, CELLS)
        syntheses.save(store, replace(MADE, seed=8), PICTURES[:1])
        assert [one.seed for one in syntheses.every(store)] == [8]
        assert syntheses.pictures(store, MADE.id) == PICTURES[:1]
        assert syntheses.cells(store, MADE.id) == []


def test_nothing_stays_of_a_synthesis_that_contradicts_itself(tmp_path: Path) -> None:
    with makers.open_store(tmp_path) as store:
        with pytest.raises(Exception, match="UNIQUE"):
            syntheses.save(store, MADE, [PICTURES[0], PICTURES[0]])
        assert syntheses.every(store) == []


def test_rows_by_run_layer_and_unit(tmp_path: Path) -> None:
    with makers.open_store(tmp_path) as store:
        run = makers.run_record("1" * 64, "mine")
        makers.save(store, run, units=6, concepts=12, layers=("conv",))
        syntheses.save(store, replace(MADE, run_id=run.id), PICTURES)
        syntheses.save(store, replace(MADE, id="b" * 64, command="invert"), PICTURES[1:])
        names = syntheses.COLUMNS
        rows = [dict(zip(names, row)) for row in syntheses.rows(store, run="mine", layer="conv", unit=3)]
        assert [(r["run"], r["path"], r["loss"]) for r in rows] == [("mine", "inversion/x/b.png", -1.5)]
        assert [dict(zip(names, r))["command"] for r in syntheses.rows(store, command="invert")] == ["invert"]
        assert list(syntheses.rows(store, layer="conv", unit=4)) == []
        with pytest.raises(SpecError, match="nowhere"):
            list(syntheses.rows(store, run="nowhere"))


def test_a_deleted_run_leaves_its_pictures(tmp_path: Path) -> None:
    with makers.open_store(tmp_path) as store:
        run = makers.run_record("1" * 64, "mine")
        makers.save(store, run, units=6, concepts=12, layers=("conv",))
        syntheses.save(store, replace(MADE, run_id=run.id), PICTURES)
        store.delete_run("mine")
        assert [one.run_id for one in syntheses.every(store)] == [None]
