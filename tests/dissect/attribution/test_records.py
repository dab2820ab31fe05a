"""What the commands leave in the database, on the page and on stdout, and the Python example of the docs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dissect import models
from dissect.attribution import METHODS
from dissect.cli import cmd_attribute
from dissect.cli.main import main
from dissect.store import Store, attributions
from tests.dissect.tiny import TinySet

MODEL = "squeezenet1_1"  # as one types it; rows say torchvision:squeezenet1_1
LAYER = "features.5"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dissection of a random network on a tiny set: <folder>/ws, <folder>/data, <folder>/photo.png."""
    folder = tmp_path_factory.mktemp("records")
    (folder / "data").mkdir()
    TinySet(folder / "data", images=12, size=32)
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / "photo.png")
    arguments = ["run", MODEL, "--layer", LAYER, "--data", folder / "data", "--name", "tiny", "--quantile", "0.05"]
    assert main([*map(str, arguments), "--workspace", str(folder / "ws")]) == 0
    return folder


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def query(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> list[dict]:
    code, out, _ = told(capsys, "query", *arguments, "--format", "json", "--workspace", folder / "ws")
    assert code == 0
    return json.loads(out)


def test_a_map_is_a_row_with_its_audit_and_measures(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = (MODEL, "--image", workspace / "photo.png", "--target", "class:3", "--workspace", workspace / "ws")
    code, out, _ = told(capsys, "attribute", "guided", *common, "--judge")
    assert code == 0
    (found,) = json.loads(out)["images"]
    (row,) = query(capsys, workspace, "attributions", "--method", "guided", "--image", "photo.png")
    assert row["attribution"] == found["attribution"]
    assert row["target"] == "class 3 (logit)"
    assert row["replaced"] == 26 == json.loads(row["audit"])["replaced"]["relu"]
    measures = json.loads(row["measures"])
    assert {"deletion", "insertion, random map", "sensitivity-n", "randomisation", "class contrast"} <= set(measures)
    assert measures == found["measures"]
    with Store.open(workspace / "ws", readonly=True) as store:
        record = next(one for one in attributions.every(store) if one.id == row["attribution"])
        with np.load(attributions.arrays(store, record), allow_pickle=False) as arrays:
            assert np.array_equal(arrays["image"], np.asarray(Image.open(workspace / "photo.png")))
            assert arrays["map"].shape == (64, 64)
    # The same again is the same row; another question is another, and neither touches the other's files.
    kept = Path(found["arrays"]).read_bytes()
    told(capsys, "attribute", "guided", *common, "--probability", "--no-report")
    told(capsys, "attribute", "guided", *common, "--no-report")
    assert len(query(capsys, workspace, "attributions", "--method", "guided")) == 2
    assert len(kept) > 0
    page = (workspace / "ws/reports/_attributions/index.html").read_text(encoding="utf-8")
    assert "photo.png: class 3 (logit)" in page
    assert "26 relu calls" in page
    assert "_attributions/index.html" in (workspace / "ws/reports/index.html").read_text(encoding="utf-8")


def test_carriers_are_named_by_the_dissection(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(
        capsys, "attribute", "units", MODEL, "--image", workspace / "photo.png", "--layer", LAYER, "--run", "tiny",
        "--way", "gradient", "--workspace", workspace / "ws",
    )  # fmt: skip
    assert code == 0
    (found,) = json.loads(out)["images"]
    units = {row["unit"]: row for row in query(capsys, workspace, "units", "--run", "tiny")}
    rows = query(capsys, workspace, "carriers", "--run", "tiny", "--image", "photo.png")
    assert [row["unit"] for row in rows] == [carrier["unit"] for carrier in found["carriers"]]
    assert [row["rank"] for row in rows] == list(range(1, 9))
    for row in rows:
        assert (row["concept"], row["category"]) == (units[row["unit"]]["concept"], units[row["unit"]]["category"])
        assert row["iou"] == units[row["unit"]]["iou"]
    first = rows[0]
    assert (
        query(capsys, workspace, "carriers", "--unit", str(first["unit"]))[0]["contribution"] == first["contribution"]
    )
    page = (workspace / "ws/reports/_attributions/index.html").read_text(encoding="utf-8")
    links = re.findall(r'href="(\.\./tiny/layers/[^"#]+)#unit=(\d+)"', page)
    assert [int(unit) for _, unit in links] == [row["unit"] for row in rows]
    assert (workspace / "ws/reports/_attributions" / links[0][0]).is_file()


def test_a_class_a_unit_a_direction_and_a_concept(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A concept is the sum of its detectors: the same map as a direction with ones there, up to its length."""
    units = query(capsys, workspace, "units", "--run", "tiny")
    concept = units[0]["concept"]
    found = [row["unit"] for row in units if row["concept"] == concept and row["iou"] > 0.04]
    assert len(found) > 1
    vector = np.zeros(len(units))
    vector[found] = 1
    np.save(workspace / "ones.npy", vector)
    names = (f"unit:{LAYER}:{found[0]}", f"direction:{LAYER}:{workspace / 'ones.npy'}", f"concept:{LAYER}:{concept}")
    maps = []
    for target in ("class:3", *names):
        code, out, err = told(
            capsys, "attribute", "gradient-x-input", MODEL, "--image", workspace / "photo.png", "--target", target,
            "--run", "tiny", "--reduce", "sum", "--no-report", "--workspace", workspace / "ws",
        )  # fmt: skip
        assert code == 0, err
        with np.load(json.loads(out)["images"][0]["arrays"], allow_pickle=False) as arrays:
            maps.append(arrays["map"])
    np.testing.assert_allclose(maps[2] * len(found) ** 0.5, maps[3], rtol=1e-4, atol=1e-6 * np.abs(maps[3]).max())
    assert not np.allclose(maps[0], maps[1])
    code, out, err = told(
        capsys, "attribute", "gradient", MODEL, "--image", workspace / "photo.png", "--target",
        f"concept:{LAYER}:{concept}x", "--run", "tiny", "--workspace", workspace / "ws",
    )  # fmt: skip
    assert (code, out) == (2, "")
    assert f"no unit detects '{concept}x': did you mean {concept}" in err


def test_occluders_are_compared(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(
        capsys, "attribute", "occluder-sensitivity", MODEL, "--image", workspace / "photo.png", "--patch", "32",
        "--stride", "32", "--workspace", workspace / "ws",
    )  # fmt: skip
    assert code == 0
    (found,) = json.loads(out)["images"]
    assert found["occluders"] == ["grey", "mean", "black", "white", "blur 8", "local mean", "noise", "neighbour"]
    table = np.array(found["correlation"])
    off = table[~np.eye(len(table), dtype=bool)]
    assert found["agreement"] == pytest.approx(off.mean())
    assert f"occluders agree by {found['agreement']:.3f}" in err
    page = (workspace / "ws/reports/_attributions/index.html").read_text(encoding="utf-8")
    assert "Does the occluder matter?" in page


def test_judging_tables(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ("--workspace", workspace / "ws", "--format", "json")
    code, out, _ = told(
        capsys, "judge", "planted", "--items", "4", "--methods", "guided", "--scores", "pointing,energy", *at
    )
    assert code == 0
    rows = {row["method"]: row for row in json.loads(out)}
    assert list(rows) == ["guided", "constant", "random", "centre", "ground truth"]
    assert rows["guided"]["pointing"] == rows["ground truth"]["pointing"] == 1
    assert rows["constant"]["pointing"] == pytest.approx(81 / 48**2)
    questions = ("--data", workspace / "data", "--limit", "2", "--methods", "gradient", "--scores", "pointing")
    code, out, _ = told(capsys, "judge", MODEL, *questions, "--ask", "cat=3", "--ask", "dog=4+5", *at)
    assert code == 0
    cells = query(capsys, workspace, "judgements", "--method", "gradient")
    assert json.loads(cells[-1]["settings"])["asked"] == {
        "cat": "class 3 (logit)", "dog": "classes 4, 5 (sum of logits)",
    }  # fmt: skip
    assert cells[-1]["items"] == 4
    page = (workspace / "ws/reports/_attributions/index.html").read_text(encoding="utf-8")
    assert "Judged on the planted set" in page
    assert re.search(r"By pointing, the best map that knows nothing \(\w+, 0\.\d+\) is beaten by 1 of 1 method\.", page)


def test_detectors_of_a_run_are_targets(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = ("--data", workspace / "data", "--run", "tiny", "--layer", LAYER, "--concepts", "2", "--limit", "1")
    code, out, err = told(
        capsys, "judge", MODEL, *questions, "--methods", "grad-cam", "--scores", "pointing", "--workspace",
        workspace / "ws", "--format", "json",
    )  # fmt: skip
    assert code == 0, err
    assert {row["method"] for row in json.loads(out)} == {"grad-cam", "constant", "random", "centre", "ground truth"}
    (cell,) = [c for c in query(capsys, workspace, "judgements", "--run", "tiny") if c["method"] == "grad-cam"]
    assert all("detectors)" in title for title in json.loads(cell["settings"])["asked"].values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MODEL,), "add --data"),
        ((MODEL, "--data", "DATA"), "say what is asked"),
        ((MODEL, "--data", "DATA", "--ask", "cat=3", "--run", "tiny"), "say what is asked"),
        ((MODEL, "--data", "DATA", "--ask", "unicorn=3"), "no concept 'unicorn'"),
        ((MODEL, "--data", "DATA", "--ask", "cat"), "expected CONCEPT=TARGET"),
        ((MODEL, "--data", "DATA", "--ask", "cat=top"), "expected CONCEPT=TARGET"),
        ((MODEL, "--data", "DATA", "--ask", "cat=5000"), "class 5000 is out of range"),
        ((MODEL, "--data", "DATA", "--run", "tiny"), "--layer"),
        ((MODEL, "--data", "DATA", "--run", "nobody", "--layer", LAYER), "nobody"),
        ((MODEL, "--data", "DATA", "--ask", "dgo=3"), "did you mean dog"),
        ((MODEL, "--data", "DATA", "--ask", "cat=unit:features.55:3"), "did you mean features.5"),
        (("planed",), "did you mean planted"),
        (("planted", "--data", "DATA"), "brings its own network and images"),
        (("planted", "--methods", "guied"), "did you mean guided"),
        (("planted", "--scores", "pointin"), "did you mean pointing"),
        (("planted", "--methods", "magic"), "method 'magic' is unknown"),
        (("planted", "--methods", "gradient,gradient"), "twice"),
        (("planted", "--scores", "beauty"), "score 'beauty' is unknown"),
        (("planted", "--items", "0"), "count from 1"),
    ],
)
def test_mistakes_exit_with_2_and_one_message(
    arguments: tuple[str, ...], message: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [str(workspace / "data") if a == "DATA" else a for a in arguments]
    code, out, err = told(capsys, "judge", *named, "--workspace", workspace / "ws")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_names_of_another_network_are_refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(models.load(MODEL, seed=1).module.state_dict(), workspace / "other.pth")
    common = ("--image", workspace / "photo.png", "--run", "tiny", "--layer", LAYER, "--workspace", workspace / "ws")
    code, out, err = told(capsys, "attribute", "units", MODEL, "--weights", workspace / "other.pth", *common)
    assert (code, out) == (2, "")
    assert "those of other units" in err
    code, _, err = told(capsys, "attribute", "units", "torchvision:squeezenet1_0", *common)
    assert code == 2
    assert "dissected torchvision:squeezenet1_1" in err


def test_questions_are_no_maps_to_judge(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(
        capsys, "attribute", "units", MODEL, "--layer", LAYER, "--judge", "--image", workspace / "photo.png",
        "--workspace", workspace / "ws",
    )  # fmt: skip
    assert code == 2
    assert "--judge judges maps" in err


def test_the_command_offers_every_method_and_explains_it() -> None:
    assert tuple(METHODS) == cmd_attribute.GRADIENTS
    for name in (*cmd_attribute.GRADIENTS, *cmd_attribute.OTHERS, *cmd_attribute.QUESTIONS):
        assert re.search(rf"\b{name}\b", cmd_attribute.DESCRIPTION), name


def test_the_example_of_the_docs_runs(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[3] / "docs/attribution.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(workspace)
    names: dict[str, object] = {}
    exec(compile(example, "docs/attribution.md", "exec"), names)
    assert Path("overlay.png").is_file()
