"""Attributions in the database: whole or not at all, replaced by what decides them, found by image, unit and run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dissect.errors import SpecError
from dissect.store import attributions
from dissect.store.attributions import AttributionRecord, CarrierRecord, JudgementRecord, ScoreRecord
from tests.dissect.store import makers

MADE = AttributionRecord(
    "guided", "demo", "dog.png", "a" * 64, "class 3 (logit)", 1.25, "attributions/x.npz", {"relu": "guided"},
    {"replaced": {"relu": 7}, "calls": []}, 7, {"deletion": 0.25}, {"notes": ["7 relu calls replaced"]}, "f" * 64,
)  # fmt: skip
CARRIERS = [
    CarrierRecord(1, 4, -0.5, 0.625, "dog", "object", 0.125, 1),
    CarrierRecord(2, 0, 0.25, 0.3125),
]
TABLE = JudgementRecord("demo", "planted", 2, {"tolerance": 15, "seed": 0}, data_fingerprint="c" * 64)
CELLS = [
    ScoreRecord("guided", "pointing", 0, 0, 0.5, 0.5, [1.0, 0.0]),
    ScoreRecord("constant", "pointing", 1, 1, 0.25, None, [0.25]),
]


def plain(record: object) -> object:
    return replace(record, id="", created_at="")  # type: ignore[type-var]


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    with makers.open_store(tmp_path) as store:
        kept = attributions.save(store, MADE, CARRIERS)
        table = attributions.save_judgement(store, TABLE, CELLS)
        assert [plain(one) for one in attributions.every(store)] == [MADE]
        assert attributions.carriers(store, kept.id) == CARRIERS
        assert [plain(one) for one in attributions.every_judgement(store)] == [TABLE]
        assert attributions.scores(store, table.id) == CELLS
        assert attributions.arrays(store, kept) == tmp_path / "attributions/x.npz"


def test_the_same_question_replaces_its_answer_and_another_does_not(tmp_path: Path) -> None:
    with makers.open_store(tmp_path) as store:
        kept = attributions.save(store, MADE, CARRIERS)
        again = attributions.save(store, replace(MADE, score=2.0, measures={}, arrays="elsewhere.npz"))
        assert again.id == kept.id
        assert [one.score for one in attributions.every(store)] == [2.0]
        assert attributions.carriers(store, kept.id) == []
        for other in (
            replace(MADE, target="class 4 (logit)"),
            replace(MADE, image_sha256="b" * 64),
            replace(MADE, parameters={"relu": "deconvnet"}),
            replace(MADE, weights_sha256=None),
        ):
            assert attributions.save(store, other).id != kept.id
        assert len(attributions.every(store)) == 5
        table = attributions.save_judgement(store, TABLE, CELLS)
        assert attributions.save_judgement(store, TABLE, CELLS).id == table.id
        assert attributions.save_judgement(store, replace(TABLE, settings={"tolerance": 0}), CELLS).id != table.id
        assert len(attributions.every_judgement(store)) == 2


def test_nothing_stays_of_what_contradicts_itself(tmp_path: Path) -> None:
    with makers.open_store(tmp_path) as store:
        with pytest.raises(Exception, match="UNIQUE"):
            attributions.save(store, MADE, [CARRIERS[0], CARRIERS[0]])
        with pytest.raises(Exception, match="CHECK"):
            attributions.save(store, MADE, [replace(CARRIERS[0], share=1.5)])
        with pytest.raises(Exception, match="UNIQUE"):
            attributions.save_judgement(store, TABLE, [CELLS[0], CELLS[0]])
        with pytest.raises(ValueError, match="JSON compliant"):
            attributions.save(store, replace(MADE, measures={"deletion": float("nan")}))
        assert attributions.every(store) == []
        assert attributions.every_judgement(store) == []


def test_rows_by_run_method_image_target_unit_and_concept(tmp_path: Path) -> None:
    with makers.open_store(tmp_path) as store:
        run = makers.run_record("1" * 64, "mine")
        makers.save(store, run, units=6, concepts=12, layers=("conv",))
        attributions.save(store, replace(MADE, run_id=run.id, layer="conv", method="units"), CARRIERS)
        attributions.save(store, MADE)
        attributions.save_judgement(store, replace(TABLE, run_id=run.id), CELLS)

        def dicts(columns: tuple[str, ...], rows: object) -> list[dict]:
            return [dict(zip(columns, row, strict=True)) for row in rows]  # type: ignore[call-overload]

        (own,) = dicts(attributions.COLUMNS, attributions.rows(store, run="mine"))
        assert (own["run"], own["method"], own["replaced"]) == ("mine", "units", 7)
        assert json.loads(own["audit"])["replaced"] == {"relu": 7}
        assert len(list(attributions.rows(store, image="dog.png", target="class 3 (logit)"))) == 2
        assert list(attributions.rows(store, method="occlusion")) == []
        (dog,) = dicts(attributions.CARRIER_COLUMNS, attributions.carrier_rows(store, concept="dog"))
        assert (dog["layer"], dog["unit"], dog["contribution"]) == ("conv", 4, -0.5)
        assert [r["unit"] for r in dicts(attributions.CARRIER_COLUMNS, attributions.carrier_rows(store, "mine"))] == [
            4, 0,
        ]  # fmt: skip
        assert list(attributions.carrier_rows(store, unit=5)) == []
        cells = dicts(attributions.JUDGEMENT_COLUMNS, attributions.judgement_rows(store, "mine", "constant"))
        assert [(c["data"], c["mean"], c["error"], c["baseline"]) for c in cells] == [("planted", 0.25, None, 1)]
        with pytest.raises(SpecError, match="nowhere"):
            list(attributions.rows(store, run="nowhere"))
        store.delete_run("mine")
        assert {one.run_id for one in attributions.every(store)} == {None}
        assert len(attributions.every_judgement(store)) == 1
