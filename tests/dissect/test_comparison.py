"""Comparisons: the numbers against plain counting, matching against planted units, intervals against simulation."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dissect import comparison, scores
from dissect.cli.main import main
from dissect.errors import SpecError
from dissect.store import Store
from tests.dissect.store import makers


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with makers.open_store(tmp_path / "w") as opened:
        yield opened


def plant(store: Store, name: str, meeting: np.ndarray, layer: str = "conv", **changes: Any) -> None:
    """A finished run with a layer of given counts [U, L] over concepts 1..L-1; every area is 1,000."""
    concepts = makers.concept_records(meeting.shape[1] - 1)
    concepts = [replace(c, area=1000) for c in concepts]
    primary = np.array([-1, *(c.category for c in concepts)])
    area = np.array([0, *(c.area for c in concepts)])
    counts = scores.Counts(meeting, np.full((len(meeting), 6), 1000), area, primary)
    record = makers.run_record(name.ljust(64, "0"), name=name, **changes)
    store.begin_run(record)
    file = store.workspace.save_counts(record.id, 0, counts.intersection)
    made = makers.layer_record(layer, counts, counts_file=file)
    store.finish_run(record.id, [made], concepts, makers.category_records())


def test_numbers_are_those_of_the_store(store: Store) -> None:
    makers.save(store, makers.run_record("a" * 64, name="one"), units=60, concepts=40)
    makers.save(store, makers.run_record("b" * 64, name="two"), units=60, concepts=40, seed=9)
    found = comparison.compare(store, ["one", "two"])
    said = found.json()
    json.dumps(said, allow_nan=False)
    names = {c.number: c.name for c in store.concepts("a" * 64)}
    sets = []
    for side in said["sides"]:
        units = store.units(store.layers(side["run"])[0])
        labels = [names[n] for n, iou in zip(units.label.tolist(), units.iou.tolist()) if n and iou > side["cut"]]
        sets.append(set(labels))
        assert side["detectors"] == len(labels) == sum(c["detectors"] for c in side["categories"].values())
        assert side["unique_concepts"] == len(set(labels))
        for concept in said["concepts"]:
            (cell,) = [c for c in concept["sides"] if c["side"] == side["side"]]
            assert cell["detectors"] == labels.count(concept["concept"])
    assert set(said["only"]["A"]) == sets[0] - sets[1]
    assert set(said["only"]["B"]) == sets[1] - sets[0]
    (match,) = said["matches"]
    assert match["matched_by"] == "number"
    assert sum(match["changes"].values()) == 60
    difference = said["sides"][1]["share_difference"]
    assert difference["low"] < difference["value"] < difference["high"]
    assert difference["value"] == pytest.approx((said["sides"][1]["detectors"] - said["sides"][0]["detectors"]) / 60)


def test_units_of_another_network_are_found_by_what_they_detect(store: Store) -> None:
    """The same units under other numbers, among others: every one finds its twin, and no pair disagrees."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 300, (20, 31)) * (rng.random((20, 31)) < 0.4)
    first[:, 0] = 0
    order = rng.permutation(20)
    other = np.concatenate([first[order], np.zeros((3, 31), np.int64)])
    plant(store, "one", first)
    plant(store, "two", other, model="another", layer="block")
    (match,) = comparison.compare(store, ["one", "two"]).matches
    assert match.how == "profile"
    assert match.correlation is not None
    assert sorted(match.unit.tolist()) == list(range(20))
    assert [order[partner] for partner in match.partner.tolist()] == match.unit.tolist()
    np.testing.assert_allclose(match.correlation, 1, atol=1e-5)
    assert match.agreement == 1.0
    assert match.chance is not None
    assert 0 < match.chance < 0.5


def test_profiles_correlate_as_numpy_says(store: Store) -> None:
    rng = np.random.default_rng(1)
    one, two = (rng.integers(0, 300, (15, 20)) for _ in range(2))
    plant(store, "one", one)
    plant(store, "two", two, model="another")
    sides = comparison.compare(store, ["one", "two"]).sides
    left, right = (side.profile() for side in sides)
    assert left is not None
    assert right is not None
    plain = [scores.iou(m[:, 1:], np.int64(1000), np.int64(1000)) for m in (one, two)]
    expected = np.corrcoef(plain[0], plain[1])[:15, 15:]
    np.testing.assert_allclose(left @ right.T, expected, atol=1e-5)
    forth, back, top = comparison.best_partners(left, right)
    assert forth.tolist() == expected.argmax(1).tolist()
    assert back.tolist() == expected.argmax(0).tolist()
    np.testing.assert_allclose(top, expected.max(1), atol=1e-5)


def test_layers_by_depth_and_checkpoints(store: Store) -> None:
    makers.save(store, makers.run_record("a" * 64, name="deep"), units=20, layers=("l1", "l2", "l3"))
    for text in (["deep"], ["deep:*"], ["deep:l1", "deep:l2", "deep:l3"]):
        assert [side.layer.name for side in comparison.compare(store, text).sides] == ["l1", "l2", "l3"]
    assert [match.how for match in comparison.compare(store, ["deep"]).matches] == ["profile", "profile"]
    with pytest.raises(SpecError, match=r"3 layers \(l1, l2, l3\).*deep:LAYER, or deep:\*"):
        comparison.compare(store, ["deep", "deep:l1"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"convention": "lite"}, "'one' counts as 'exact', 'two' as 'lite'.*conventions"),
        ({"data_fingerprint": "0" * 64}, "different images or labels"),
    ],
)
def test_what_does_not_compare_is_refused_with_the_reason(store: Store, changes: dict[str, str], message: str) -> None:
    makers.save(store, makers.run_record("a" * 64, name="one"), units=10)
    makers.save(store, makers.run_record("b" * 64, name="two", **changes), units=10)
    with pytest.raises(SpecError, match=message):
        comparison.compare(store, ["one", "two"])
    with pytest.raises(SpecError, match="nothing to compare"):
        comparison.compare(store, ["one"])
    store.begin_run(makers.run_record("c" * 64, name="half"))
    with pytest.raises(SpecError, match="half is running"):
        comparison.compare(store, ["one", "half"])


def test_units_of_different_number_cannot_be_matched_by_number(store: Store) -> None:
    makers.save(store, makers.run_record("a" * 64, name="one"), units=10)
    makers.save(store, makers.run_record("b" * 64, name="two"), units=12)
    with pytest.raises(SpecError, match="cannot be matched by number"):
        comparison.compare(store, ["one", "two"], "number")
    assert comparison.compare(store, ["one", "two"], "none").matches == ()


def test_imported_runs_compare_by_concept_names(shared_data: Path, tmp_path: Path) -> None:
    files = [
        shared_data / "golden" / f"{name}.csv" for name in ("caffe_reference_imagenet", "caffe_reference_places365")
    ]
    if not all(file.exists() for file in files):
        files = sorted((shared_data / "golden").glob("*.csv"))[:2]
    place = ["--workspace", str(tmp_path)]
    for number, file in enumerate(files):
        assert main(["import", str(file), "--name", f"n{number}", *place]) == 0
    with Store.open(tmp_path, readonly=True) as opened:
        said = comparison.compare(opened, ["n0", "n1"]).json()
    first, other = (set(names) for names in said["only"].values())
    both = {c["concept"] for c in said["concepts"] if c["in"] == "AB"}
    assert both
    assert len(first) + len(both) == said["sides"][0]["unique_concepts"]
    assert len(other) + len(both) == said["sides"][1]["unique_concepts"]
    assert said["notes"]


def test_interval_of_a_difference_covers() -> None:
    """Two shares of 400 draws each: 95 % of the intervals hold the true difference."""
    rng = np.random.default_rng(0)
    a, b = rng.binomial(400, 0.2, 4000), rng.binomial(400, 0.3, 4000)
    hit = 0
    for one, other in zip(a.tolist(), b.tolist()):
        low, high = comparison.difference_interval(
            one / 400, comparison.wilson(one, 400), other / 400, comparison.wilson(other, 400)
        )
        hit += low <= 0.1 <= high
    assert 0.94 <= hit / 4000 <= 0.96


def test_differences_have_intervals_where_both_have_one(store: Store) -> None:
    makers.save(store, makers.run_record("a" * 64, name="one"), units=60)
    makers.save(store, makers.run_record("b" * 64, name="two"), units=60, seed=9)
    rows = comparison.compare(store, ["one", "two"]).json()["matches"][0]["units"]
    known = [row["difference"] for row in rows if "low" in row["difference"]]
    assert 0 < len(known) < len(rows)
    for found in known:
        assert found["low"] <= found["value"] <= found["high"]


def test_command(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    makers.save(store, makers.run_record("a" * 64, name="one"), units=30, layers=("l1", "l2", "l3"))
    makers.save(store, makers.run_record("b" * 64, name="two", model="other"), units=25, seed=4)
    place = ["--workspace", str(store.workspace.root)]
    assert main(["compare", "one", *place]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split()[:4] == ["side", "run", "layer", "units"]
    assert len(said.out.splitlines()) >= 4
    page = Path(said.err.splitlines()[-1].removeprefix("page  "))
    assert "Detectors from column to column" in page.read_text()
    assert main(["compare", "one:l1", "two", "--json", "--out", str(tmp_path / "page"), *place]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["page"] == str(tmp_path / "page" / "index.html")
    html = Path(found["page"]).read_text()
    assert "Units that detect alike" in html
    assert f"{found['matches'][0]['pairs']} units of A and B" in html
    assert main(["compare", "one:l1", "nobody", *place]) == 2
