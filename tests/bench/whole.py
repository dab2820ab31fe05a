"""Whole processes: `dissect run` without its report against the plain script, in turn, start-up included."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import table
from tests.bench.table import Table

CASES = {
    "mobilenet_v2": (["features.18.1"], ["--mean", "0.5", "--std", "0.5"]),
    "squeezenet1_1": (["features.12"], []),
    "resnet18": (["layer4"], []),
}
COUNTING = ("threshold_s", "overlap_s")


def run(data: Path, options: argparse.Namespace) -> Table:
    """Ratio of wall times; the share of thresholds and overlap in our own; memory beyond that of the plain script."""
    rows = Table(
        "Whole process against the plain script",
        {
            "model": ("network", str),
            "dtype": ("dtype", str),
            "images": ("images", table.whole),
            "plain_s": ("plain script", table.seconds),
            "dissect_s": ("dissect", table.seconds),
            "ratio": ("ratio", table.ratio),
            "counting": ("thresholds and overlap", table.share),
            "extra_bytes": ("memory beyond the plain script", table.megabytes),
        },
    )
    for model in options.model:
        found: dict[str, list[tuple[float, float, dict[str, Any], dict[str, Any]]]] = {d: [] for d in options.dtype}
        for _ in range(options.repeats):
            plain_s, plain = _timed(
                [sys.executable, "-m", "tests.bench.plain", model, str(data), "32", str(options.limit)]
            )
            for dtype in options.dtype:
                with tempfile.TemporaryDirectory() as folder:
                    ours_s, ours = _timed(_dissection(model, data, options, dtype, folder))
                found[dtype].append((plain_s, ours_s, plain, ours))
        for dtype, pairs in found.items():
            rows.add(
                model=model,
                dtype=dtype,
                images=pairs[0][3]["images"],
                plain_s=median(pair[0] for pair in pairs),
                dissect_s=median(pair[1] for pair in pairs),
                ratio=median(pair[1] / pair[0] for pair in pairs),
                counting=median(sum(pair[3]["timings"][k] for k in COUNTING) / pair[1] for pair in pairs),
                extra_bytes=max(pair[3]["peak_rss_bytes"] - pair[2]["peak_rss_bytes"] for pair in pairs),
            )
    return rows


def _timed(command: list[str]) -> tuple[float, dict[str, Any]]:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    if done.returncode not in (0, 3):
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return wall, json.loads(done.stdout.splitlines()[-1])


def _dissection(model: str, data: Path, options: argparse.Namespace, dtype: str, folder: str) -> list[str]:
    layers, more = CASES[model]
    command = [sys.executable, "-m", "dissect.cli.main", "run", model, "--data", str(data), "--no-report", "--json"]
    command += [part for layer in layers for part in ("--layer", layer)] + more
    command += ["--workspace", folder, "--dtype", dtype]
    weights = Path(options.weights or "", f"{model}_imagenet.pth")
    if options.weights and weights.is_file():
        command += ["--weights", str(weights)]
    return command + (["--limit", str(options.limit)] if options.limit else [])
