"""The two published checks find what their paper found, on planted pairs, on pixels and on a stored run."""

import json
from pathlib import Path

import numpy as np
import pytest

from dissect import sanity
from dissect.cli.main import main
from tests.dissect.store import makers

PASSING = {"iou": True, "f1": True, "phi": True, "iqr": True, "precision": False, "recall": False}


@pytest.mark.parametrize("seed", range(3))
def test_planted_detectors(seed: int) -> None:
    """Correlation, average precision, F1 and IoU pass; precision and recall each fail one (as published)."""
    found = {v.measure: v for v in sanity.check_counts(sanity.planted(seed=seed), seed)}
    assert {name: v.passes for name, v in found.items()} == PASSING
    assert found["precision"].extra == 0
    assert found["recall"].missing == pytest.approx(0.5, abs=0.06)
    assert found["recall"].extra == found["precision"].missing == 1
    assert sanity.check_ranking(seed=seed).passes


def test_labels_that_fit_by_chance_have_nothing_to_lose() -> None:
    pixels = np.full(400, 1_000_000)
    area, size = np.full(400, 50_000), np.full(400, 2_000)
    found = {v.measure: v for v in sanity.check_counts((area * size // pixels, area, size, pixels))}
    assert not found["iou"].passes


def test_drawn_counts_are_those_of_spoilt_pixels() -> None:
    """What is drawn for many pairs has the mean and spread of labels moved by hand, pixel by pixel."""
    rng = np.random.default_rng(0)
    mask, concept = np.zeros(4000, bool), np.zeros(4000, bool)
    mask[:900], concept[500:1100] = True, True
    by_hand = []
    for _ in range(2000):
        gone = rng.choice(np.flatnonzero(concept), 300, replace=False)
        by_hand.append(400 - (gone < 900).sum())
    drawn = sanity._drawn(rng, np.full(2000, 400), np.full(2000, 200), np.full(2000, 300))
    assert drawn.mean() == pytest.approx(np.mean(by_hand), abs=0.8)
    assert drawn.std() == pytest.approx(np.std(by_hand), rel=0.08)


def test_a_stored_run_can_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with makers.open_store(tmp_path) as store:
        makers.save(store, makers.run_record("1" * 64, "known"), units=40, concepts=30, layers=("a", "b"))
    assert main(["doctor", "--measures", "known", "--workspace", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["measures"]
    assert {one["measure"] for one in found} == set(PASSING)
    assert {one["pairs"] for one in found} == {found[0]["pairs"]}
    assert 0 < found[0]["pairs"] <= 80
    assert main(["doctor", "--measures", "--workspace", str(tmp_path / "none")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:8]] == [*PASSING, "ap"]
    assert main(["doctor", "--measures", "knwon", "--workspace", str(tmp_path)]) == 2
    assert "known" in capsys.readouterr().err
