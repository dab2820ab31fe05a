"""The five commands from end to end on a small random network: files, JSON, resume, and the errors of a user."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dissect.cli import inversion_options as options
from dissect.cli.main import main
from dissect.store import Store, syntheses

NET = ["squeezenet1_1", "--range", "imagenet", "--input-size", "40"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(3):
        small = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(small).resize((60, 50), Image.Resampling.BICUBIC).save(folder / f"p{i}.png")
    return folder


def told(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict:
    assert main([str(a) for a in arguments]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert len(lines) == 1  # nothing but the object on stdout
    result = json.loads(lines[0])
    folder = Path(result["out"])
    for file in result["files"]:
        assert hashlib.sha256((folder / file["path"]).read_bytes()).hexdigest() == file["sha256"]
    assert not list(folder.rglob("*.tmp"))
    return result


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([str(a) for a in arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err


def test_invert(capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path) -> None:
    arguments = [
        "invert", *NET, "--image", photos, "--limit", "2", "--layer", "features.3", "--layer", "features.12",
        "--restarts", "2", "--shorter", "50", "--workspace", tmp_path, "--json",
    ]  # fmt: skip
    first = told(capsys, *arguments)
    assert [layer["layer"] for layer in first["layers"]] == ["features.3", "features.12"]
    assert {"feature_error", "cvpr15_error", "restart_spread", "image_error_se196"} <= set(first["layers"][0])
    kinds = [file["kind"] for file in first["files"]]
    assert kinds.count("inversion") == 2 * 2 * 2
    assert {"inversion-sheet", "restart-sheet", "inversion-curves"} <= set(kinds)
    again = told(capsys, *arguments)
    pictures = [[f for f in r["files"] if f["kind"] == "inversion"] for r in (first, again)]
    assert pictures[0] == pictures[1]


def test_maximize(capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path) -> None:
    made = told(
        capsys, "maximize", *NET, "--class", "3,7", "--images", photos, "--second", "squeezenet1_1,range=half",
        "--shorter", "100", "--workspace", tmp_path, "--json",
    )  # fmt: skip
    assert [t["name"] for t in made["targets"]] == ["class 3", "class 7"]
    assert all(t["second_rank"] is not None and t["best_real"] is not None for t in made["targets"])
    units = told(
        capsys, "maximize", *NET, "--layer", "features.6", "--unit", "0-2", "--where", "centre", "--shorter", "100",
        "--workspace", tmp_path, "--json",
    )  # fmt: skip
    assert len(units["targets"]) == 3
    assert units["out"] != made["out"]


def test_dream_and_film(capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path) -> None:
    base = ["dream", *NET, "--image", photos / "p0.png", "--layer", "features.3", "--octaves", "2", "--smallest", "20"]
    base += ["--iterations", "2", "--workspace", tmp_path, "--json"]
    made = told(capsys, *base)
    assert [(o["height"], o["width"]) for o in made["octaves"]] == [(28, 28), (40, 40)]
    guided = told(capsys, *base, "--guide", photos / "p1.png")
    assert guided["guided"]
    assert guided["out"] != made["out"]
    film = told(capsys, *base, "--frames", "3", "--film", "fall.gif")
    assert film["frames"] == 3
    assert film["files"][0]["path"] == "fall.gif"


def test_adversarial(capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path) -> None:
    made = told(
        capsys, "adversarial", *NET, "--image", photos, "--limit", "2", "--iterations", "5", "--no-polish",
        "--transfer", "squeezenet1_1,range=imagenet", "--workspace", tmp_path, "--json",
    )  # fmt: skip
    assert len(made["images"]) == 2
    assert {"norm", "distortion", "quantised_success", "evaluations"} <= set(made["images"][0])
    assert made["transfer"]["torchvision:squeezenet1_1"] == 1


def test_illusion(capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path) -> None:
    made = told(
        capsys, "adversarial", *NET, "--image", photos, "--illusion", "low=0-499", "high=500-999", "--steps", "2",
        "--held-out", "squeezenet1_1,range=half", "--workspace", tmp_path, "--json",
    )  # fmt: skip
    assert made["conditions"]["adv"] == made["conditions"]["flip"] == 3
    assert (Path(made["out"]) / "stimuli" / "page" / "index.html").exists()
    assert next(iter(made["answered_target"]["held_out"].values())).keys() >= {"image", "adv", "flip"}


def test_fool(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    base = ["fool", *NET, "--first", "6", "--offspring", "4", "--workspace", tmp_path, "--json"]
    two = told(capsys, *base, "--generations", "2")
    assert two["evaluations"] == 6 + 2 * 4
    four = told(capsys, *base, "--generations", "4")  # the same archive goes on
    assert four["out"] == two["out"]
    assert four["evaluations"] == 6 + 4 * 4
    assert four["mean_confidence"] >= two["mean_confidence"]
    gradient = told(
        capsys, "fool", *NET, "--gradient", "--class", "1,2", "--steps", "3", "--workspace", tmp_path, "--json"
    )
    assert len(gradient["confidence"]) == 2
    retrain = told(
        capsys, "fool", "--retrain", "--rounds", "1", "--generations", "1", "--first", "5", "--offspring", "5",
        "--workspace", tmp_path, "--json",
    )  # fmt: skip
    assert retrain["rounds"][0]["classes"] == 10


def test_mistakes_get_one_clear_sentence(capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path) -> None:
    at = ["--workspace", tmp_path]
    image = ["--image", photos]
    unknown = ["squeezenet1_1", "--input-size", "40"]
    assert "input range of torchvision:squeezenet1_1 is not known" in refused(
        capsys, "invert", *unknown, *image, "--layer", "features.3", *at
    )
    assert "no layer given" in refused(capsys, "invert", *NET, *image, *at)
    assert "has no layer 'features.99'" in refused(capsys, "invert", *NET, *image, "--layer", "features.99", *at)
    assert "class 1000 is out of range" in refused(capsys, "maximize", *NET, "--class", "1000", *at)
    assert "no target given" in refused(capsys, "maximize", *NET, *at)
    assert "too small for 4 octaves" in refused(
        capsys, "dream", *NET, "--image", photos / "p0.png", "--layer", "features.3", *at
    )
    assert "give a larger --input-size" in refused(
        capsys, "maximize", "squeezenet1_1", "--range", "imagenet", "--input-size", "8", "--class", "1", *at
    )
    assert "class 5000 is out of range" in refused(capsys, "adversarial", *NET, *image, "--target", "5000", *at)
    assert "expected NAME=CLASSES" in refused(capsys, "adversarial", *NET, *image, "--illusion", "cat", "dog=2", *at)
    assert "no MODEL given" in refused(capsys, "fool", *at)
    assert "no image or folder" in refused(
        capsys, "invert", *NET, "--image", tmp_path / "x", "--layer", "features.3", *at
    )
    assert "expected MODEL,weights=FILE" in refused(capsys, "maximize", *NET, "--class", "1", "--second", "a,b=c", *at)


def test_json_is_never_given_what_it_has_no_word_for() -> None:
    value = {"a": [np.float32(1.5), np.nan, np.array([1, 2])], 3: (float("inf"), np.bool_(True))}
    assert json.dumps(options.plain(value), allow_nan=False) == '{"a": [1.5, null, [1, 2]], "3": [null, true]}'


@pytest.mark.parametrize(("text", "found"), [("3", [3]), ("1,4-6", [1, 4, 5, 6])])
def test_numbers(text: str, found: list[int]) -> None:
    assert options.numbers(text) == found


def test_results_are_in_the_database_and_the_gallery(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    base = ["--workspace", tmp_path, "--json"]
    made = told(
        capsys, "maximize", *NET, "--layer", "features.6", "--unit", "2,5", "--shorter", "100",
        "--images", photos, *base,
    )  # fmt: skip
    told(capsys, "fool", *NET, "--generations", "1", "--first", "4", "--offspring", "2", *base)
    assert made["parts"]["optimiser"]["kind"] == "Adam"
    assert main(["query", "syntheses", "--unit", "5", "--layer", "features.6", "--format", "json",
                 "--workspace", str(tmp_path)]) == 0  # fmt: skip
    (row,) = json.loads(capsys.readouterr().out)
    picture = tmp_path / row["path"]
    assert hashlib.sha256(picture.read_bytes()).hexdigest() == row["sha256"]
    assert json.loads(row["measures"])["synthetic"] == made["targets"][1]["synthetic"]
    with Store.open(tmp_path, readonly=True) as store:
        first, second = syntheses.every(store)
        assert (first.command, second.command) == ("maximize", "fool")
        assert len(syntheses.cells(store, second.id)) == 1000
    gallery = (tmp_path / "reports" / "_gallery" / "index.html").read_text(encoding="utf-8")
    assert "Maximum impulses: torchvision" in gallery or "Maximum impulses: squeezenet1_1" in gallery
    assert "unit 5" in gallery


def test_an_unknown_run_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    arguments = ["dream", *NET, "--image", photos / "p0.png", "--layer", "features.3", "--workspace", tmp_path]
    assert "database" in refused(capsys, *arguments, "--run", "nowhere")
    assert not (tmp_path / "inversion").exists()
