"""A run in shards, as an array job measures it, ends with the rows and pages of one process."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest

from dissect import partial
from dissect.checkpoint import Sink
from dissect.cli.main import main
from dissect.errors import SpaceError, SpecError
from dissect.request import RunRequest
from dissect.shard_files import ShardFiles, Took, copied, plain, revived
from dissect.workspace import Workspace
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


def test_shards_that_let_too_much_go_are_measured_again_where_they_are_merged(
    place: Path,
    quiet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(partial, "shard_keep", lambda keep, share, batches: 2)
    for i in range(2):
        assert run(place, tmp_path, *SPEC, "--shard", f"{i}/2") == 0
    assert main(["merge", "--workspace", str(tmp_path)]) == 0
    assert "shards 0, 1 must be measured again as a whole: doing so here" in capsys.readouterr().err
    assert scores(tmp_path) == scores(quiet)
    assert tree(tmp_path / "reports" / "same") == tree(quiet / "reports" / "same")
    assert not list(tmp_path.rglob("*.partial"))


def test_shards_of_data_that_has_changed_are_not_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TinySet(tmp_path / "data", images=8)
    (tmp_path / "net.py").write_text(NET)
    assert run(tmp_path, tmp_path / "ws", *SPEC, "--shard", "0/1") == 0
    (left,) = tmp_path.rglob("*.partial")
    TinySet(tmp_path / "other", images=8, seed=5)
    (tmp_path / "data").rename(tmp_path / "before")
    (tmp_path / "other").rename(tmp_path / "data")
    assert main(["merge", "--workspace", str(tmp_path / "ws")]) == 2
    assert "were measured with another release or other files: measure again" in capsys.readouterr().err
    assert left.exists()


# The files of the shards.


@pytest.fixture
def files(tmp_path: Path) -> ShardFiles:
    found = ShardFiles(Workspace.at(tmp_path), "0123")
    found.keep_request(RunRequest("demo", ("0",), "data"))
    return found


def test_of_several_cuts_the_one_that_lacks_least_is_told(files: ShardFiles) -> None:
    assert files.begun() is None
    with pytest.raises(SpecError, match="run 0123 has no shards in this workspace: measure them with `dissect run"):
        files.complete()
    for shard in ((0, 5), (3, 5), (1, 2), (0, 9)):
        files.keep(shard, copied(b"%d of %d" % shard, {}))
    assert files.begun() == 2
    with pytest.raises(SpecError, match="lacks 1 of 2 shards: 0/2; measure, then merge again"):
        files.complete()
    for number in (1, 2, 4):
        files.keep((number, 5), copied(b"%d of 5" % number, {}))
    assert files.begun() == 5
    assert {number: path.read_bytes() for number, path in files.complete().items()} == {
        number: b"%d of 5" % number for number in range(5)
    }


def test_what_a_shard_took_is_known_or_nothing(files: ShardFiles) -> None:
    assert files.took((0, 2)) == {}
    path = files.keep((0, 2), copied(b"partial", {"shard_s": 1.5}))
    assert files.took((0, 2)) == {"shard_s": 1.5, "bytes": 7}
    path.with_name("00-of-02.took.json").write_text('{"shard_s": 1.')
    assert files.took((0, 2)) == {}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_no_shard_and_nothing_else(
    files: ShardFiles, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    kept = files.keep((0, 2), copied(b"partial", {}))
    before = tree(kept.parent)

    def full(*where: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(SpaceError, match=r"cannot write .*01-of-02\..*: No space left on device"):
        files.keep((1, 2), copied(b"other", {}))
    assert tree(kept.parent) == before


def test_a_shard_that_fails_leaves_nothing(files: ShardFiles) -> None:
    kept = files.keep((0, 2), copied(b"partial", {}))
    before = tree(kept.parent)

    def broken(file: Sink) -> Took:
        file.write(b"half of it")
        raise SpecError("the model does not load")

    with pytest.raises(SpecError, match="does not load"):
        files.keep((1, 2), broken)
    assert tree(kept.parent) == before


def test_a_request_comes_back_as_it_was_with_its_paths_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("basis.npz").touch()
    given = RunRequest("demo", ("0", "2"), "data", weights="w.pth", cache_dir=Path("cache"), basis="basis.npz")
    wanted = dataclasses.replace(
        given, data=str(tmp_path / "data"), weights=str(tmp_path / "w.pth"), cache_dir=tmp_path / "cache",
        basis=str(tmp_path / "basis.npz"),
    )  # fmt: skip
    assert revived(json.loads(json.dumps(plain(given)))) == wanted
    assert plain(dataclasses.replace(given, basis="pca"))["basis"] == "pca"  # not the name of a file
