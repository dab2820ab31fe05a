"""What the batch service costs beside one process: the same run through `dissect worker` and through `dissect run`."""

import argparse
import csv
import ctypes
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.bench import table
from tests.bench.table import Table
from tests.bench.whole import CASES

_SUBREAPER = 36  # of prctl(2): the worker's children are ours once it is gone, and so is the time they took


def run(data: Path, options: argparse.Namespace) -> Table:
    """CPU and wall seconds from start to end, in turn; the job is queued before."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    rows = Table(
        "A worker against one process",
        {
            "model": ("network", str),
            "images": ("images", table.whole),
            "shards": ("shards", table.whole),
            "run_cpu": ("`dissect run`, CPU", table.seconds),
            "worker_cpu": ("`dissect worker`, CPU", table.seconds),
            "cpu": ("CPU overhead", table.share),
            "run_s": ("`dissect run`, wall", table.seconds),
            "worker_s": ("`dissect worker`, wall", table.seconds),
            "wall": ("wall overhead", table.share),
            "beside": ("of it outside the forward passes", table.share),
        },
    )
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        longer = _repeated(data, options.times, Path(folder) / "data") if options.times > 1 else data
        for model in options.model:
            bare, served = [], []
            for number in range(options.repeats):
                there = [Path(folder) / f"{kind}-{model}-{number}" for kind in ("run", "worker")]
                bare.append(_timed(_run(model, longer, options, there[0]), there[0]))
                _submit(model, longer, options, there[1])
                served.append(_timed(["worker", "--workspace", str(there[1])], there[1]))
                with sqlite3.connect(there[1] / "dissect.sqlite") as db:
                    images, shards = db.execute("SELECT images, (SELECT count(*) - 1 FROM shards) FROM jobs").fetchone()
                    assert db.execute("SELECT state FROM jobs").fetchone() == ("finished",)
            rows.add(
                model=model, images=images, shards=shards,
                run_cpu=median(pair[0] for pair in bare), worker_cpu=median(pair[0] for pair in served),
                cpu=median(s[0] / b[0] - 1 for s, b in zip(served, bare)),
                run_s=median(pair[1] for pair in bare), worker_s=median(pair[1] for pair in served),
                wall=median(s[1] / b[1] - 1 for s, b in zip(served, bare)),
                beside=median((s[1] - s[2] - b[1] + b[2]) / b[1] for s, b in zip(served, bare)),
            )  # fmt: skip
    return rows


def _timed(arguments: list[str], workspace: Path) -> tuple[float, float, float]:
    """CPU seconds of a command and of all that it started, wall seconds until it ended, and those of them in which the
    network was run: the same work on both sides, whose noise says nothing about a ledger."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "dissect.cli.main", *arguments], stderr=subprocess.DEVNULL)
    cpu, wall, code = 0.0, 0.0, -1
    while True:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            break
        cpu += usage.ru_utime + usage.ru_stime
        if pid == process.pid:
            wall, code = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
    process.returncode = code
    assert code in (0, 3), f"{arguments} ended with {code}"
    with sqlite3.connect(workspace / "dissect.sqlite") as db:
        ((timings,),) = db.execute("SELECT timings FROM runs")
    return cpu, wall, json.loads(timings)["forward_s"]


def _weights(model: str, options: argparse.Namespace) -> Path | None:
    path = Path(options.weights or "", f"{model}_imagenet.pth")
    return path.absolute() if options.weights and path.is_file() else None


def _run(model: str, data: Path, options: argparse.Namespace, workspace: Path) -> list[str]:
    layers, more = CASES[model]
    weights = _weights(model, options)
    return [
        "run", model, "--data", str(data), "--workspace", str(workspace), "--no-report", *more,
        *(part for layer in layers for part in ("--layer", layer)), *(("--weights", str(weights)) if weights else ()),
        *(("--limit", str(options.limit)) if options.limit else ()),
    ]  # fmt: skip


def _submit(model: str, data: Path, options: argparse.Namespace, workspace: Path) -> None:
    layers, more = CASES[model]
    values = {"model": f'"{model}"', "layers": str(layers), "data": f'"{data.absolute()}"', "report": "false"}
    values |= {name.removeprefix("--"): value for name, value in zip(more[::2], more[1::2])}
    if (weights := _weights(model, options)) is not None:
        values["weights"] = f'"{weights}"'
    if options.limit:
        values["limit"] = str(options.limit)
    workspace.mkdir()
    shards = f"shards = {options.shards}\n" if options.shards else ""
    (workspace / "spec.toml").write_text(
        f"{shards}[[run]]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
    )
    command = [sys.executable, "-m", "dissect.cli.main", "submit", str(workspace / "spec.toml")]
    subprocess.run([*command, "--workspace", str(workspace)], check=True, capture_output=True)


def _repeated(data: Path, times: int, target: Path) -> Path:
    """The set with its images so often, under other names: a run of real length from a small set."""
    target.mkdir()
    for path in data.glob("*.csv"):
        shutil.copy(path, target)
    for number in range(times):
        shutil.copytree(data / "images", target / "images" / f"{number}")
    with open(data / "index.csv", newline="") as file:
        header, *rows = list(csv.reader(file))
    pictured = [header.index(name) for name in header if name not in ("split", "ih", "iw", "sh", "sw")]

    def renamed(cell: str, number: int) -> str:
        return ";".join(part if part.isdigit() or not part else f"{number}/{part}" for part in cell.split(";"))

    with open(target / "index.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number in range(times):
            writer.writerows([[renamed(c, number) if i in pictured else c for i, c in enumerate(r)] for r in rows])
    (target / "checksums.csv").unlink(missing_ok=True)
    return target
