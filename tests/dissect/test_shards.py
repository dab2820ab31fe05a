"""A run in shards, as an array job measures it, ends with the rows and pages of one process."""

import json
from pathlib import Path

import pytest

from dissect.cli.main import main
from tests.dissect.test_cli_run import NET, run, scores, tree
from tests.dissect.tiny import TinySet

SPEC = ("--layer", "0", "--layer", "2", "--batch-size", "2", "--name", "same")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    TinySet(folder / "data", images=30)
    (folder / "net.py").write_text(NET)
    return folder


@pytest.fixture(scope="module")
def quiet(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("quiet")
    assert run(place, workspace, *SPEC) == 0
    return workspace


def test_shards_in_any_order_end_like_one_process(
    place: Path,
    quiet: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for i in (2, 0, 1):
        assert run(place, tmp_path, *SPEC, "--shard", f"{i}/3", "--json") == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [entry["shard"] for entry in said] == ["2/3", "0/3", "1/3"]
    assert not (tmp_path / "dissect.sqlite").exists()
    assert main(["merge", "--workspace", str(tmp_path), "--json"]) == 0
    assert scores(tmp_path) == scores(quiet)
    assert tree(tmp_path / "reports" / "same") == tree(quiet / "reports" / "same")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["run"] == said[0]["run"]


def test_a_measured_shard_is_not_measured_again_and_a_damaged_one_is(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(2):
        assert run(place, tmp_path, *SPEC, "--shard", "0/2", "--json") == 0
    first, again = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == again
    path = Path(first["partial"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert run(place, tmp_path, *SPEC, "--shard", "0/2") == 0
    assert path.read_bytes() == whole


def test_missing_shards_are_named(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "--workspace", str(tmp_path)]) == 2
    assert "no runs have shards" in capsys.readouterr().err
    assert run(place, tmp_path, *SPEC, "--shard", "1/3") == 0
    assert main(["merge", "--workspace", str(tmp_path)]) == 2
    assert "lacks 2 of 3 shards: 0/3, 2/3" in capsys.readouterr().err
    assert main(["merge", "0123", "--workspace", str(tmp_path)]) == 2
    assert "no shards of run 0123" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["3/3", "0/65", "a/b", "1"])
def test_impossible_shards_are_refused(place: Path, tmp_path: Path, wrong: str) -> None:
    assert run(place, tmp_path, *SPEC, "--shard", wrong) == 2
