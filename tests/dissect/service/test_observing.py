"""What can be seen of the service: logs, metrics, times, and what was left out or tried again."""

import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import broden
from dissect.cli.main import main
from dissect.prometheus import exposition
from dissect.serve.metrics import SOURCES
from dissect.service.children import _plain
from dissect.service.logs import worker_log
from dissect.service.metrics import ledger
from dissect.store import Store
from dissect.store.ledger import Ledger
from dissect.workspace import Workspace
from tests.dissect.service.test_ledger import Clock, claim, submit
from tests.dissect.service.test_worker import POISON, spec, start
from tests.dissect.store import makers
from tests.dissect.tiny import TinySet


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job that met an image which ends the process, done by a worker that logs JSON."""
    folder = tmp_path_factory.mktemp("observed")
    TinySet(folder / "data", images=30)
    (folder / "net.py").write_text(POISON)
    path = folder / "data" / "images" / broden.open(folder / "data").rows[7].image
    Image.new("RGB", Image.open(path).size, (255, 255, 255)).save(path)
    asked = spec(folder, folder, 2, "poison", layers=["inner.0"], mean=[0.0] * 3, std=[1.0] * 3)
    found = folder / "ws"
    assert main(["submit", str(asked), "--workspace", str(found)]) == 0
    worker = start(found, "--log-format", "json")
    _, shown = worker.communicate(timeout=240)
    assert worker.returncode == 3, shown
    (found / "stderr").write_text(shown)
    return found


def lines(workspace: Path) -> Iterator[dict[str, Any]]:
    for path in (workspace / "logs").glob("*.log"):
        yield from map(json.loads, path.read_text().splitlines())


@pytest.mark.slow
def test_every_line_of_the_log_can_be_read_by_a_machine(workspace: Path) -> None:
    found = list(lines(workspace))
    assert [json.loads(line) for line in (workspace / "stderr").read_text().splitlines()] == found
    run = sqlite3.connect(workspace / "dissect.sqlite").execute("SELECT id FROM runs").fetchone()[0]
    for row in found:
        assert row.keys() - {"ms"} == {"ts", "level", "event", "worker", "job", "run", "shard", "attempt"}
        assert (row["run"], row["job"]) == (run, 1)
        assert row["level"] in ("info", "warning", "error")
    done = [row for row in found if ": done in" in row["event"]]
    assert sorted(row["shard"] for row in done) == [0, 1, 2]
    assert all(row["ms"] > 0 for row in done)
    failed = [row for row in found if "failed" in row["event"]]
    assert {row["level"] for row in failed} == {"warning"}
    assert len(failed) == 2  # the third attempt looks for the image
    assert "forward" in next(row["event"] for row in done if row["shard"] == 0)


@pytest.mark.slow
def test_what_was_left_out_and_tried_again_is_told(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--workspace", str(workspace)]
    assert main(["jobs", *where, "--format", "json"]) == 0
    job = json.loads(capsys.readouterr().out)[0]
    assert (job["state"], job["set_aside"], job["shards"]) == ("finished", 1, 2)
    assert job["attempts"] == 3 + 3  # two shards and the end; three times in vain
    assert main(["logs", "same", *where]) == 0
    told = capsys.readouterr().out
    assert "image 7 is set aside: the process was ended by signal 9" in told
    assert told.count(": failed, the process was ended by signal 9") == 2
    page = (workspace / "reports" / "same" / "index.html").read_text()
    assert "1 input set aside" in page
    assert "it ends the process that reads it" in page


@pytest.mark.slow
def test_the_run_row_says_what_it_took(workspace: Path) -> None:
    row = sqlite3.connect(workspace / "dissect.sqlite").execute("SELECT timings, provenance, peak_rss_bytes FROM runs")
    timings, provenance, memory = row.fetchone()
    timings = json.loads(timings)
    assert {"wall_s", "forward_s", "decode_s", "threshold_s", "overlap_s", "report_s"} <= timings.keys()
    took = [json.loads(path.read_text()) for path in workspace.glob("cache/*/shards/*.took.json")]
    assert len(took) == 2
    for name in ("forward_s", "decode_s"):
        assert timings[name] >= sum(shard[name] for shard in took) > 0
    assert all(shard["bytes"] > 0 and shard["peak_rss_bytes"] > 10 << 20 for shard in took)
    assert json.loads(provenance)["temporary_disk_bytes"] >= 0
    assert memory > 10 << 20


@pytest.mark.slow
def test_the_file_for_prometheus_says_what_the_server_says(workspace: Path) -> None:
    found = (workspace / "metrics.prom").read_text()
    with Store.open(workspace, readonly=True) as store:
        assert found == exposition(ledger(store))
        served = exposition(sample for source in SOURCES for sample in source(store))
    assert all(line in served.splitlines() for line in found.splitlines())
    for line in ('dissect_jobs{state="finished"} 1', 'dissect_shards{state="done"} 3', "dissect_shard_leases 6",
                 "dissect_images_set_aside 1", "dissect_leases_lapsed 0"):  # fmt: skip
        assert line in found.splitlines()


def test_a_silent_worker_is_seen(tmp_path: Path) -> None:
    clock = Clock()
    with makers.open_store(tmp_path) as store:
        found = Ledger(store, clock)
        submit(found)
        claim(found)
        assert found.totals().lapsed == 0
        clock.now += 61
        assert found.totals().lapsed == 1
        claim(found)
        assert found.totals().lapsed == 0


def test_logs_are_rotated(tmp_path: Path) -> None:
    with worker_log(Workspace.at(tmp_path), "rotated", "json") as log:
        log.removeHandler(log.handlers[0])
        handler = log.handlers[0]
        assert isinstance(handler, logging.handlers.RotatingFileHandler)
        handler.maxBytes = 1000
        for number in range(100):
            log.info("event %d", number)
    files = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert files == ["rotated.log", "rotated.log.1", "rotated.log.2", "rotated.log.3"]
    assert all(path.stat().st_size <= 1000 for path in (tmp_path / "logs").iterdir())
    assert not log.handlers


def test_a_complaint_cannot_steer_a_terminal() -> None:
    assert _plain("a\x1b[2Jb\x07\u202ec") == "a?[2Jb??c"
    assert len(_plain("x" * 5000)) == 1000
