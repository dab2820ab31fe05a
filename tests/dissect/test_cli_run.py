"""`dissect run` as a user meets it: the finished run, the repeated run, mistakes and broken input."""

import json
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from dissect.cli.main import main
from tests.dissect.tiny import NAMES, TinySet

NET = """
import torch
from torch import nn


def build(num_classes=4):
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(3, 7, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.Conv2d(7, num_classes, 1))


def broken():
    class Bad(nn.Module):
        def forward(self, x):
            out = x[:, :, ::2, ::2].clone()
            out[:, 1] = float("nan")
            out[:, 2] = 3.0
            return out
    return nn.Sequential(Bad())


def planted():
    class Masks(nn.Module):
        def forward(self, x):
            x = x[:, :, ::2, ::2] * 255
            return torch.stack([(x[:, c] - 20 * n).abs().lt(1).float() for c, n in ((0, 3), (0, 4), (1, 5))], 1)
    return nn.Sequential(Masks())
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    TinySet(folder / "data", images=30)
    (folder / "net.py").write_text(NET)
    return folder


@pytest.fixture
def trust(place: Path) -> str:
    import hashlib

    return hashlib.sha256((place / "net.py").read_bytes()).hexdigest()


def run(place: Path, workspace: Path, *arguments: str, model: str = "build", data: str = "data") -> int:
    import hashlib

    digest = hashlib.sha256((place / "net.py").read_bytes()).hexdigest()
    return main(
        ["run", f"{place / 'net.py'}:{model}", "--trust-code", digest, "--data", str(place / data),
         "--quantile", "0.05", "--workspace", str(workspace), *arguments]
    )  # fmt: skip


def scores(workspace: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(workspace / "dissect.sqlite") as db:
        return db.execute("SELECT * FROM scores ORDER BY layer_id, unit, rank").fetchall()


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_ends_with_the_promised_object(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, tmp_path / "ws", "--layer", "0", "--layer", "2", "--name", "first", "--json") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found) >= {
        "run", "database", "report", "convention", "images", "excluded_images", "layers", "timings", "peak_rss_bytes",
    }  # fmt: skip
    assert set(found["timings"]) >= {"wall_s", "forward_s", "decode_s", "threshold_s", "overlap_s", "report_s"}
    assert found["layers"]["0"] == {
        "units": 7,
        **{k: found["layers"]["0"][k] for k in ("detectors", "unique_detectors", "unique_concepts")},
    }
    assert found["images"] == 30
    assert Path(found["report"]).read_text().startswith("<!doctype html>")
    assert Path(found["database"]).is_file()


def test_the_same_run_twice_gives_the_same_bytes(place: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run(place, tmp_path / name, "--layer", "0", "--name", "same") == 0
    assert scores(tmp_path / "a") == scores(tmp_path / "b")
    assert tree(tmp_path / "a" / "reports" / "same") == tree(tmp_path / "b" / "reports" / "same")


def test_repeating_returns_the_finished_run_and_another_spec_cannot_take_its_name(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, tmp_path, "--layer", "0", "--name", "mine", "--no-report") == 0
    before = (tmp_path / "dissect.sqlite").read_bytes()
    capsys.readouterr()
    assert run(place, tmp_path, "--layer", "0", "--name", "mine", "--no-report") == 0
    assert "was finished already" in capsys.readouterr().err
    assert (tmp_path / "dissect.sqlite").read_bytes() == before
    assert run(place, tmp_path, "--layer", "2", "--name", "mine", "--no-report") == 2
    assert "mine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["resnet81", "--layer", "x", "--data", "D"], 2, "torchvision has no model 'resnet81': did you mean resnet"),
        (["squeezenet1_1", "--data", "D"], 2, "no layer given: add --layer NAME, or --layer '?' to list them"),
        (["squeezenet1_1", "--layer", "features.99", "--data", "D"], 2, "'features.99': did you mean features."),
        (["squeezenet1_1", "--layer", "features.12"], 2, "no concept data given: add --data DIR"),
        (["squeezenet1_1", "--layer", "features.12", "--data", "D/none"], 2, "none"),
        (["squeezenet1_1", "--layer", "features.12", "--data", "D", "--quantile", "1.5"], 2, "--quantile is 1.5"),
        (["squeezenet1_1", "--layer", "features.12", "--data", "D", "--convention", "x"], 2, "expected one of exact"),
        (["squeezenet1_1", "--layer", "features.12", "--data", "D", "--dtype", "int8"], 2, "dtype 'int8' is unknown"),
        (["squeezenet1_1", "--layer", "features.3", "--data", "D", "--weights", "D/none.pth"], 2, "do not exist"),
        (["squeezenet1_1", "--layer", "features.12", "--data", "D", "--limit", "0"], 2, "--limit is 0"),
        (["D/../net.py:build", "--layer", "0", "--data", "D"], 4, "--trust-code "),
    ],
)  # fmt: skip
def test_mistakes_get_a_message_and_a_code(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    given = [part.replace("D/", f"{place}/data/") if part.startswith("D/") else part for part in arguments]
    given = [str(place / "data") if part == "D" else part for part in given]
    assert main(["run", *given, "--workspace", str(tmp_path)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_the_refusal_prints_a_command_that_works(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], trust: str
) -> None:
    command = ["run", f"{place / 'net.py'}:build", "--layer", "0", "--data", str(place / "data"), "--quantile", "0.05",
               "--no-report", "--workspace", str(tmp_path)]  # fmt: skip
    assert main(command) == 4
    assert f"--trust-code {trust}" in capsys.readouterr().err
    assert main([*command, "--trust-code", trust]) == 0


class _Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_with_code_is_refused_and_does_not_run(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = tmp_path / "canary"
    torch.save({"features.0.weight": torch.zeros(1), "x": _Canary(canary)}, tmp_path / "bad.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Canary(canary)))
    for name in ("bad.pth", "plain.pth"):
        code = main(["run", "squeezenet1_1", "--weights", str(tmp_path / name), "--layer", "features.3", "--data",
                     str(place / "data"), "--workspace", str(tmp_path / "ws")])  # fmt: skip
        assert code == 4
        assert "weights only" in capsys.readouterr().err
        assert not canary.exists()


def test_weights_of_another_network_are_explained(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": {"module.conv.weight": torch.zeros(3, 3)}}, tmp_path / "other.pth")
    code = main(["run", "squeezenet1_1", "--weights", str(tmp_path / "other.pth"), "--layer", "features.3", "--data",
                 str(place / "data"), "--workspace", str(tmp_path / "ws")])  # fmt: skip
    assert code == 2
    error = capsys.readouterr().err
    assert "the weights do not fit torchvision:squeezenet1_1: 52 missing (features.0.weight" in error
    assert "1 unexpected (conv.weight)" in error


def test_excluded_images_are_counted_and_stored(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(place / "data", data)
    (data / "images" / "a" / "004.png").write_bytes(b"not a picture")
    (data / "images" / "a" / "009_object_1.png").unlink()
    assert run(place, tmp_path / "ws", "--layer", "0", "--json", data=str(data)) == 3
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["images"], found["excluded_images"]) == (28, 2)
    with sqlite3.connect(tmp_path / "ws" / "dissect.sqlite") as db:
        assert [row[:2] for row in db.execute("SELECT position, file FROM excluded ORDER BY position")] == [
            (4, "a/004.png"), (9, "a/009_object_1.png"),
        ]  # fmt: skip


def test_odd_units_are_kept_flagged_and_never_ranked(place: Path, tmp_path: Path) -> None:
    assert run(place, tmp_path, "--layer", "0", "--no-report", model="broken") == 0
    with sqlite3.connect(tmp_path / "dissect.sqlite") as db:
        rows = db.execute("SELECT unit, dead, nonfinite > 0, label, iou, threshold FROM units ORDER BY unit").fetchall()
        scored = {row[0] for row in db.execute("SELECT DISTINCT unit FROM scores")}
    assert [row[1:5] for row in rows[1:]] == [(0, 1, None, 0.0), (1, 0, None, 0.0)]
    assert rows[1][5] is None
    assert scored == {0}


def test_planted_truth_through_database_query_and_pages(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Units that are the masks of cat, dog and wheel score 1 on them, and the counted value on another concept."""
    arguments = ["--layer", "0", "--name", "planted", "--mean", "0", "--std", "1", "--quantile", "0.25"]
    assert run(place, tmp_path / "ws", *arguments, model="planted") == 0
    capsys.readouterr()
    query = ["query", "units", "--run", "planted", "--workspace", str(tmp_path / "ws"), "--format", "json"]
    assert main(query) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["unit"], row["concept"], row["iou"]) for row in rows] == [
        (0, "cat", 1.0),
        (1, "dog", 1.0),
        (2, "wheel", 1.0),
    ]
    assert all(row["intersection"] == row["unit_area"] == row["concept_area"] > 0 for row in rows)

    truth = TinySet(tmp_path / "again", images=30)
    where = [truth.holds(i) for i in range(30)]
    assert main([*query, "--rank", "all"]) == 0
    for row in json.loads(capsys.readouterr().out):
        unit, other = {0: 3, 1: 4, 2: 5}[row["unit"]], NAMES.index(row["concept"])
        category = [n for n in range(1, 11) if truth.primary[n] == truth.primary[other]]
        meeting = sum(int((w[unit] & w[other]).sum()) for w in where)
        area = sum(int(w[unit].sum()) for w in where if w[category].any())
        concept = sum(int(w[other].sum()) for w in where)
        assert (row["intersection"], row["unit_area"], row["concept_area"]) == (meeting, area, concept)
        assert row["iou"] == meeting / (area + concept - meeting)

    page = (tmp_path / "ws" / "reports" / "planted" / "layers" / "0-0" / "plain-0.html").read_text()
    for name in ("cat", "dog", "wheel"):
        assert name in page
    assert page.count("1.0000") >= 3


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_images(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], images: int) -> None:
    data = tmp_path / "data"
    shutil.copytree(place / "data", data)
    lines = (data / "index.csv").read_text().splitlines(keepends=True)
    (data / "index.csv").write_text("".join(lines[: 1 + images]))
    code = run(place, tmp_path / "ws", "--layer", "0", "--quantile", "0.005", data=str(data))
    error = capsys.readouterr().err
    assert code == 2
    assert "image" in error
    assert "Traceback" not in error


def test_a_read_only_workspace_is_named(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() == 0:
        (tmp_path / "ws").write_text("a file where the folder should be")
    else:
        (tmp_path / "ws").mkdir(mode=0o500)
    assert run(place, tmp_path / "ws", "--layer", "0") in (1, 2)
    assert "ws" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_runs_go_on_and_end_with_the_same_bytes(place: Path, tmp_path: Path, trust: str) -> None:
    """SIGKILL at many moments, from start-up to the report; each time the same command ends like a quiet run."""
    script = (
        "import sys, dissect.running as r, dissect.cli.main as m, dataclasses;"
        "old = r.RunRequest.__init__;"
        "r.RunRequest.__init__ = lambda s, *a, **k: old(s, *a, **(k | {'checkpoint_seconds': 0.0}));"
        "sys.exit(m.main(sys.argv[1:]))"
    )
    arguments = ["run", f"{place / 'net.py'}:build", "--trust-code", trust, "--data", str(place / "data"), "--quantile",
                 "0.05", "--batch-size", "2", "--layer", "0", "--layer", "2", "--name", "k"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(workspace: Path) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-c", script, *arguments, "--workspace", str(workspace)],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    begun = time.monotonic()
    assert start(tmp_path / "quiet").wait() == 0
    length = time.monotonic() - begun
    expected = scores(tmp_path / "quiet"), tree(tmp_path / "quiet" / "reports" / "k")
    rng = np.random.default_rng(0)
    for i in range(6):
        workspace = tmp_path / f"killed-{i}"
        process = start(workspace)
        time.sleep(length * (0.5 + 0.08 * i + 0.05 * rng.random()))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (workspace / "reports" / "k").exists():
            assert tree(workspace / "reports" / "k") == expected[1]
        assert start(workspace).wait() == 0
        assert scores(workspace) == expected[0]
        assert tree(workspace / "reports" / "k") == expected[1]
