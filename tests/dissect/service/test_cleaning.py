"""What `gc` takes: only what nobody needs and nobody is writing."""

import os
import time
from pathlib import Path

import pytest

from dissect.cli.main import main
from dissect.service.cleaning import STALE_SECONDS
from dissect.store import Store
from tests.dissect.store import makers


def test_files_that_a_killed_process_was_writing_go_after_an_hour(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with makers.open_store(tmp_path) as store:
        store.begin_run(makers.run_record("a" * 16, "kept"))
    run = tmp_path / "cache" / ("a" * 16)
    left = [run / "0-counts.99.tmp", run / "shards" / ".00-of-02-x.partial.99.tmp", tmp_path / ".metrics.99.tmp",
            tmp_path / "cache" / "models" / "x.99.tmp", tmp_path / "reports" / ".kept.99.building" / "index.html",
            tmp_path / "reports" / ".kept.old" / "index.html", tmp_path / "reports" / ".index.html.99"]  # fmt: skip
    kept = [run / "unfinished-0" / "state.npz", run / "0-counts.npy", tmp_path / "reports" / "kept" / "index.html"]
    for path in left + kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    command = ["gc", "--yes", "--workspace", str(tmp_path)]
    assert main(command) == 0
    assert "nothing to remove" in capsys.readouterr().out
    past = time.time() - STALE_SECONDS - 10
    for path in tmp_path.rglob("*"):
        os.utime(path, (past, past))
    (left[0]).write_text("still being written")
    assert main(command) == 0
    assert "removed" in capsys.readouterr().out
    assert [path for path in left if path.exists()] == left[:1]
    assert all(path.exists() for path in kept)


def test_a_listing_removes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(tmp_path):
        pass
    gone = tmp_path / "cache" / ("b" * 16) / "0-counts.npy"
    gone.parent.mkdir(parents=True)
    gone.write_text("x")
    assert main(["gc", "--workspace", str(tmp_path)]) == 0
    assert "repeat with --yes" in capsys.readouterr().out
    assert gone.exists()
