"""`dissect attribute`: files, JSON, several images, refusals, and labels from a dissection in the database."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dissect.cli.main import main

MODEL = "torchvision:squeezenet1_1"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    paths = [folder / "one.png", folder / "other" / "one.png"]
    paths[1].parent.mkdir()
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return paths


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict, str]:
    code = main(["attribute", *(str(a) for a in arguments)])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else {}, err


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gradient", []),
        ("guided", ["--target", "unit:features.12:3"]),
        ("integrated-gradients", ["--steps", "2", "--target", "class:7", "--probability"]),
        ("grad-cam", ["--layer", "features.12"]),
        ("occlusion", ["--patch", "24", "--stride", "24", "--occluder", "0.2,0.4,0.1"]),
        ("occlusion", ["--patch", "24", "--stride", "24", "--approximate", "0.5"]),
        ("rise", ["--masks", "4"]),
    ],
)
def test_methods_write_files_and_one_json_object(
    method: str, options: list[str], photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, record, err = run(
        capsys, method, MODEL, "--image", photos[0], "--out", tmp_path, "--workspace", tmp_path, *options
    )
    assert code == 0
    (found,) = record["images"]
    assert record["preprocessing"]["mean"]
    assert Image.open(found["overlay"]).size == (64, 64)
    with np.load(found["arrays"], allow_pickle=False) as arrays:
        assert arrays["map"].shape == (64, 64)
        assert json.loads(str(arrays["record"]))["target"] == found["target"]
    if method == "guided":
        assert found["audit"]["replaced"]["relu"] > 20
        assert "relu calls replaced" in err
    if method == "occlusion":
        assert found["engine"]["engine"] == "incremental"
        assert ("error" in found["engine"]) == ("--approximate" in options)


def test_several_images_of_one_name_keep_their_files(
    photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, record, _ = run(capsys, "gradient", MODEL, "--image", *photos, "--workspace", tmp_path)
    files = [found["overlay"] for found in record["images"]]
    assert len(set(files)) == 2
    assert all(Path(file).is_file() for file in files)
    assert str(tmp_path / "attributions" / "gradient") in files[0]


def test_units_without_a_dissection_have_no_labels(
    photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--layer", "features.12", "--way", "gradient", "--target", "class:3", "--top", "3")
    code, record, _ = run(capsys, "units", MODEL, "--image", photos[0], "--workspace", tmp_path, *options)
    assert code == 0
    assert [carrier["concept"] for carrier in record["images"][0]["carriers"]] == [None] * 3
    assert record["images"][0]["concepts"] is None


def test_occluder_sensitivity_reports_the_correlations(
    photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--patch", "32", "--stride", "32", "--target", "class:1")
    _, record, _ = run(capsys, "occluder-sensitivity", MODEL, "--image", photos[0], "--workspace", tmp_path, *options)
    assert len(record["images"][0]["occluders"]) == len(record["images"][0]["correlation"]) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gradient", "--target", "class:99999"], "class 99999 is out of range"),
        (["gradient", "--target", "unit:nothing:1"], "has no layer 'nothing'"),
        (["grad-cam", "--target", "unit:nothing:1"], "has no layer 'nothing'"),
        (["gradient", "--target", "concept:features.12:dog"], "--run"),
        (["occlusion", "--patch", "100"], "larger than the image"),
        (["units"], "--layer"),
        (["guide"], "did you mean guided"),
        (["gradient", "--target", "unit:features.21:3"], "did you mean features.2,"),
        (["gradient", "--target", "unit:features.12:512"], "has units 0 to 511"),
        (["gradient", "--target", "direction:features.12:nothing.npy"], "is no array file"),
        (["gradient", "--target", "zebra"], "expected top, class:N"),
        (["occlusion", "--occluder", "gray"], "did you mean grey"),
        (["gradient", "--mean", "1,2"], "expected three numbers"),
    ],
)
def test_mistakes_exit_with_2_and_one_message(
    arguments: list[str], message: str, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, arguments[0], MODEL, "--image", photos[0], "--workspace", tmp_path, *arguments[1:])
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_one_bad_image_among_several_is_set_aside(
    photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, small = tmp_path / "broken.png", tmp_path / "small.png"
    broken.write_bytes(photos[0].read_bytes()[:200])
    Image.new("RGB", (12, 12)).save(small)
    options = ("--patch", "32", "--stride", "32", "--target", "class:1", "--workspace", tmp_path)
    code, record, err = run(capsys, "occlusion", MODEL, "--image", broken, photos[0], small, *options)
    assert code == 3
    assert [found["image"] for found in record["images"]] == [str(photos[0])]
    assert [one["image"] for one in record["set_aside"]] == [str(broken), str(small)]
    assert "cannot be read" in record["set_aside"][0]["reason"]
    assert f"set aside {small}: " in err


def test_missing_and_broken_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "gradient", MODEL, "--image", tmp_path / "no.png", "--workspace", tmp_path)
    assert code == 2
    assert "is not there" in err
    (tmp_path / "bad.png").write_bytes(b"no image")
    code, _, err = run(capsys, "gradient", MODEL, "--image", tmp_path / "bad.png", "--workspace", tmp_path)
    assert code == 2
    assert "cannot be read" in err
