"""The curve: the runs it is made of, that they are reused, and what reaches table, JSON and page."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import broden
from dissect import curve
from dissect.cli.main import main
from dissect.errors import SpecError
from dissect.request import RunRequest
from dissect.store import Store
from dissect.untrained import untrained
from dissect.workspace import Workspace


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    broden.synth(folder, images=30, size=64, seed=0)
    return folder


def test_the_runs_of_a_curve(tmp_path: Path) -> None:
    wanted = curve.requests(RunRequest("demo", ("conv3",), "DIR", name="n"), (1.0, 0.5, 0.5, 0.0), 2)
    assert [(series, alpha, seed) for series, alpha, seed, _ in wanted] == [
        ("rotation", 0.0, None), ("rotation", 0.5, 0), ("rotation", 0.5, 1), ("rotation", 1.0, 0), ("rotation", 1.0, 1),
        ("random directions", None, 0), ("random directions", None, 1), ("untrained copy", None, 0),
        ("untrained copy", None, 1),
    ]  # fmt: skip
    assert wanted[0][3].basis is None
    assert wanted[4][3].basis == "rotate:seed=1,alpha=1.0"
    assert wanted[8][3].model == "demo:untrained"
    assert {request.name for *_, request in wanted} == {None}


@pytest.mark.parametrize(
    ("change", "alphas", "seeds", "message"),
    [
        ({}, (1.5,), 1, "alpha 1.5 is outside"),
        ({}, (1.0,), 0, "--seeds is 0"),
        ({"layers": ("a", "b")}, (1.0,), 1, "one layer"),
        ({"basis": "random"}, (1.0,), 1, "leave --basis out"),
    ],
)
def test_wrong_curves_are_refused(change: dict[str, object], alphas: tuple[float], seeds: int, message: str) -> None:
    request = RunRequest(**{"model": "demo", "layers": ("conv3",), "data": "DIR"} | change)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=message):
        curve.requests(request, alphas, seeds)


def test_an_untrained_copy_keeps_everything_but_the_weights() -> None:
    trained = RunRequest("demo", ("conv3",), "DIR", batch_size=4)
    copy = untrained(trained, 7)
    assert (copy.model, copy.seed, copy.batch_size, copy.layers) == ("demo:untrained", 7, 4, ("conv3",))
    assert copy.mean == (0.5, 0.5, 0.5)


def test_command_draws_a_curve_and_reuses_runs(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = ["curve", "demo", "--layer", "conv3", "--data", str(data), "--workspace", str(tmp_path), "--seeds", "1"]
    assert main([*order, "--alphas", "1", "--format", "json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert "finished already" not in said.err
    assert [point["series"] for point in found["points"]] == [
        "rotation", "rotation", "random directions", "untrained copy"
    ]  # fmt: skip
    assert len({point["run"] for point in found["points"]}) == 4
    with Store.open(tmp_path, readonly=True) as store:
        for point in found["points"]:
            (layer,) = store.layers(point["run"])
            assert (layer.units, layer.unique_detectors) == (point["units"], point["unique_detectors"])
        plain, rotated = (store.units(store.layers(point["run"])[0]) for point in found["points"][:2])
        assert not np.array_equal(plain.threshold, rotated.threshold)
        assert store.get_run(found["points"][1]["run"]).spec["basis"] == "rotate:seed=0,alpha=1.0"
        assert "basis" not in store.get_run(found["points"][0]["run"]).spec
    html = Path(found["page"]).read_text()
    for point in found["points"]:
        assert f"<code>{point['run']}</code>" in html
    assert not re.search(r"https?://(?!www\.w3\.org)", html)
    assert f"{Path(found['page']).parent.name}/index.html" in (tmp_path / "reports" / "index.html").read_text()
    assert main([*order, "--alphas", "0.5,1", "--format", "csv"]) == 0
    said = capsys.readouterr()
    assert said.err.count("finished already") == 4
    assert len(said.out.splitlines()) == 6


def test_points_are_the_runs_that_the_flags_make(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["demo", "--layer", "conv3", "--data", str(data), "--workspace", str(tmp_path)]
    assert main(["curve", *common, "--alphas", "0.5", "--seeds", "1", "--format", "json"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    flags = ([], ["--basis", "rotate:alpha=0.5"], ["--basis", "random:seed=0"], ["--untrained"])
    for point, flag in zip(points, flags, strict=True):
        assert main(["run", *common, *flag, "--no-report", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["run"] == point["run"]


def test_a_run_with_a_basis_of_the_axes_in_another_order_is_that_run_in_another_order(
    data: Path, tmp_path: Path
) -> None:
    """A permutation is a rotation whose outcome is known: the same units under other numbers."""
    order = np.random.default_rng(0).permutation(64)
    np.save(tmp_path / "p.npy", np.eye(64)[order])
    base = ["run", "demo", "--layer", "conv3", "--data", str(data), "--no-report", "--workspace", str(tmp_path)]
    assert main([*base, "--name", "plain"]) == 0
    assert main([*base, "--name", "moved", "--basis", str(tmp_path / "p.npy")]) == 0
    with Store.open(tmp_path, readonly=True) as store:
        plain, moved = (store.layers(store.get_run(name).id)[0] for name in ("plain", "moved"))
        one, other = store.units(plain), store.units(moved)
        # entries are rounded to 23 bits of the largest beside them, so masks may differ by single pixels
        np.testing.assert_allclose(other.threshold, one.threshold[order], rtol=1e-5)
        np.testing.assert_allclose(other.iou, one.iou[order], atol=2e-3)
    assert main([*base, "--basis", "rotate:seed=x"]) == 2
    np.save(tmp_path / "q.npy", np.eye(5))
    assert main([*base, "--basis", str(tmp_path / "q.npy")]) == 2


def test_unique_detectors_of_the_embedded_network_fall_under_rotation(tmp_path: Path) -> None:
    """docs/rotation.md at a smaller size: every rotation finds fewer than the units, untrained copies far fewer."""
    broden.synth(tmp_path / "set", images=200, size=128, seed=0)
    request = RunRequest("demo", ("conv3",), str(tmp_path / "set"))
    units, *others = curve.draw(Workspace.at(tmp_path), request, (0.8,), 2)
    found = {
        series: [p.unique_detectors for p in others if p.series == series]
        for series in (curve.ROTATION, curve.UNTRAINED)
    }
    assert max(found[curve.ROTATION]) < units.unique_detectors
    assert max(found[curve.UNTRAINED]) < units.unique_detectors / 2
