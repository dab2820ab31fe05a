"""Workers as real processes: killed, stopped, cancelled, fed with an image that ends whoever reads it."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import broden
from dissect.cli.main import main
from dissect.running import lock
from dissect.service.logs import worker_log
from dissect.service.worker import Worker
from dissect.workspace import Workspace
from tests.dissect.test_cli_run import NET, run, scores, tree
from tests.dissect.tiny import TinySet

POISON = (
    NET
    + '''

def poison():
    """The network of `build`, which ends the process when it sees a white image."""
    import os

    inner = build()

    class Poison(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            if bool((x.amin((1, 2, 3)) > 0.999).any()):
                os.kill(os.getpid(), 9)
            return self.inner(x)

    return Poison()
'''
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    TinySet(folder / "data", images=30)
    (folder / "net.py").write_text(NET)
    return folder


def spec(place: Path, folder: Path, shards: int = 3, model: str = "build", **more: object) -> Path:
    import hashlib

    digest = hashlib.sha256((place / "net.py").read_bytes()).hexdigest()
    values = {
        "model": f"{place / 'net.py'}:{model}", "trust": digest, "layers": ["0", "2"], "data": str(place / "data"),
        "quantile": 0.05, "batch_size": 2, "name": "same",
    } | more  # fmt: skip
    path = folder / "spec.toml"
    lines = [f"shards = {shards}", "[[run]]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    path.write_text("\n".join(lines))
    return path


def start(workspace: Path, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "dissect.cli.main", "worker", "--workspace", str(workspace), "--lease", "2",
         "--pause", "0.1", *more],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def jobs(workspace: Path) -> list[tuple[str, str | None]]:
    with sqlite3.connect(workspace / "dissect.sqlite") as db:
        return db.execute("SELECT state, error FROM jobs ORDER BY id").fetchall()


def events(workspace: Path) -> list[str]:
    with sqlite3.connect(workspace / "dissect.sqlite") as db:
        return [row[0] for row in db.execute("SELECT text FROM events ORDER BY id")]


def wait_for(workspace: Path, text: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not any(text in event for event in events(workspace)):
        assert time.monotonic() < end, events(workspace)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def quiet(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("quiet")
    torch.set_num_threads(1)  # as the workers' children have it: a convolution may round otherwise with more
    assert run(place, workspace, "--layer", "0", "--layer", "2", "--batch-size", "2", "--name", "same") == 0
    return workspace


def test_killed_workers_lose_one_shard_each_and_the_end_is_the_same(place: Path, quiet: Path, tmp_path: Path) -> None:
    assert main(["submit", str(spec(place, tmp_path)), "--workspace", str(tmp_path)]) == 0
    for shard in (0, 1):
        worker = start(tmp_path)
        wait_for(tmp_path, f"shard {shard}/3: attempt 1")
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        time.sleep(2.2)  # its lease
    last = start(tmp_path)
    assert last.wait(120) == 0, last.stderr and last.stderr.read()
    assert jobs(tmp_path) == [("finished", None)]
    assert scores(tmp_path) == scores(quiet)
    assert tree(tmp_path / "reports" / "same") == tree(quiet / "reports" / "same")
    attempts = [event for event in events(tmp_path) if "attempt" in event]
    assert len(attempts) <= 4 + 2  # three shards, the end, and at most one again for each kill
    assert (tmp_path / "metrics.prom").read_text().count('state="finished"') == 1


def test_an_image_that_ends_the_process_is_found_and_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    TinySet(folder / "data", images=30)
    (folder / "net.py").write_text(POISON)
    path = folder / "data" / "images" / broden.open(folder / "data").rows[7].image
    Image.new("RGB", Image.open(path).size, (255, 255, 255)).save(path)
    spec_file = spec(folder, tmp_path, 2, "poison", layers=["inner.0"], mean=[0.0] * 3, std=[1.0] * 3)
    workspace = tmp_path / "ws"
    assert main(["submit", str(spec_file), "--workspace", str(workspace)]) == 0
    worker = start(workspace)
    worker.wait(240)
    assert jobs(workspace) == [("finished", None)], events(workspace)
    with sqlite3.connect(workspace / "dissect.sqlite") as db:
        found = db.execute("SELECT position, reason FROM excluded").fetchall()
        images = db.execute("SELECT images, excluded_images FROM runs").fetchone()
    assert [position for position, _ in found] == [7]
    assert "ends the process that reads it" in found[0][1]
    assert images == (29, 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_signals_give_the_shard_back(place: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    assert main(["submit", str(spec(place, tmp_path, 1)), "--workspace", str(tmp_path)]) == 0
    worker = start(tmp_path)
    wait_for(tmp_path, "shard 0/1: attempt 1")
    worker.send_signal(number)
    assert worker.wait(30) == code
    assert events(tmp_path)[-1] == "shard 0/1: given back"
    with sqlite3.connect(tmp_path / "dissect.sqlite") as db:
        assert db.execute("SELECT state, attempts FROM shards WHERE number = 0").fetchone() == ("waiting", 0)


def test_a_job_is_cancelled_in_mid_shard_and_retried(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = ["--workspace", str(tmp_path)]
    assert main(["submit", str(spec(place, tmp_path, 1)), *workspace]) == 0
    worker = start(tmp_path)
    wait_for(tmp_path, "attempt 1")
    assert main(["cancel", "same", *workspace]) == 0
    assert worker.wait(30) == 0
    assert jobs(tmp_path) == [("cancelled", None)]
    assert main(["retry", "1", *workspace]) == 0
    assert start(tmp_path).wait(60) == 0
    assert jobs(tmp_path) == [("finished", None)]
    capsys.readouterr()
    assert main(["jobs", *workspace, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["done"] == 1
    assert main(["logs", "same", *workspace]) == 0
    assert "finishing: done" in capsys.readouterr().out
    assert main(["gc", "--yes", *workspace]) == 0
    assert not list((tmp_path / "cache").glob("*/shards"))


def test_what_cannot_work_fails_at_once(place: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    TinySet(data, images=30)
    assert main(["submit", str(spec(place, tmp_path, 1, data=str(data))), "--workspace", str(tmp_path)]) == 0
    (data / "index.csv").unlink()
    worker = start(tmp_path)
    assert worker.wait(60) == 1
    state, error = jobs(tmp_path)[0]
    assert state == "failed"
    assert error is not None
    assert "index.csv" in error
    assert sum("attempt" in event for event in events(tmp_path)) == 1


def test_a_locked_database_costs_time_only(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held for longer than SQLite waits; the worker asks again."""
    monkeypatch.setattr("dissect.store.engine.BUSY_SECONDS", 0.2)
    assert main(["submit", str(spec(place, tmp_path, 2)), "--workspace", str(tmp_path)]) == 0
    with sqlite3.connect(tmp_path / "dissect.sqlite", isolation_level=None, check_same_thread=False) as db:
        db.execute("BEGIN EXCLUSIVE")
        threading.Timer(2.0, lambda: db.execute("ROLLBACK")).start()
        begun = time.monotonic()
        workspace = Workspace.at(tmp_path)
        with worker_log(workspace, "patient", "json") as log:
            assert Worker(workspace, log).run() == 0
    assert time.monotonic() - begun > 1.5
    assert jobs(tmp_path) == [("finished", None)]
    assert "is in use by another process" in (tmp_path / "logs" / "patient.log").read_text()


def test_a_run_that_another_process_is_at_waits(place: Path, tmp_path: Path) -> None:
    """`dissect run` of the same holds its lock: that is no failed attempt."""
    assert main(["submit", str(spec(place, tmp_path, 1)), "--workspace", str(tmp_path)]) == 0
    run_id = next((tmp_path / "cache").glob("*/shards")).parent.name
    with lock(Workspace.at(tmp_path), run_id):
        worker = start(tmp_path)
        wait_for(tmp_path, "finishing: later")
    assert worker.wait(60) == 0
    assert jobs(tmp_path) == [("finished", None)]
    assert not any("failed" in event for event in events(tmp_path))
