"""`make bench`: a whole run against the plain forward loop over the same files, side by side, as ratios.

    python -m tests.bench --data DIR [--weights FOLDER] [--limit N] [--repeats R] [--json FILE]

Both sides are whole processes, run in turn; the ratio is of their wall times (start-up included; the report is not
made) and, beside it, of the loops alone.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

CASES = {
    "mobilenet_v2": (["features.18.1"], ["--mean", "0.5", "--std", "0.5"]),
    "mobilenet_v2 two layers": (["features.14", "features.18.1"], ["--mean", "0.5", "--std", "0.5"]),
    "squeezenet1_1": (["features.12"], []),
    "resnet18": (["layer4"], []),
}


def timed(command: list[str]) -> tuple[float, dict[str, Any]]:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    if done.returncode not in (0, 3):
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return wall, json.loads(done.stdout.splitlines()[-1])


def dissection(name: str, options: argparse.Namespace, dtype: str, folder: str) -> tuple[float, dict[str, Any]]:
    model = name.split(maxsplit=1)[0]
    layers, more = CASES[name]
    command = [sys.executable, "-m", "dissect.cli.main", "run", model, "--data", options.data, "--no-report", "--json"]
    command += (
        [part for layer in layers for part in ("--layer", layer)] + more + ["--workspace", folder, "--dtype", dtype]
    )
    weights = Path(options.weights or "", f"{model}_imagenet.pth")
    if options.weights and weights.is_file():
        command += ["--weights", str(weights)]
    if options.limit:
        command += ["--limit", str(options.limit)]
    return timed(command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    rows = []
    for name in options.case or CASES:
        ours, plain = [], []
        for _ in range(options.repeats):
            plain.append(
                timed(
                    [sys.executable, "-m", "tests.bench.plain", name.split()[0], options.data, "32", str(options.limit)]
                )
            )
            with tempfile.TemporaryDirectory() as folder:
                ours.append(dissection(name, options, options.dtype, folder))
        timings = ours[0][1]["timings"]
        loop = [sum(o[1]["timings"][k] for k in ("forward_s", "decode_s", "threshold_s", "overlap_s")) for o in ours]
        row = {
            "case": name,
            "images": ours[0][1]["images"],
            "plain_wall_s": median(wall for wall, _ in plain),
            "dissect_wall_s": median(wall for wall, _ in ours),
            "ratio": median(o[0] / p[0] for o, p in zip(ours, plain)),
            "ratio_of_loops": median(o / p[1]["loop_s"] for o, p in zip(loop, plain)),
            "counting_share": (timings["threshold_s"] + timings["overlap_s"]) / ours[0][0],
            "extra_peak_bytes": ours[0][1]["peak_rss_bytes"] - plain[0][1]["peak_rss_bytes"],
        }
        rows.append(row)
        print(
            f"{name:<24} plain {row['plain_wall_s']:7.1f} s  dissect {row['dissect_wall_s']:7.1f} s  "
            f"ratio {row['ratio']:.2f}  "
            f"loops {row['ratio_of_loops']:.2f}  counting {row['counting_share']:.1%}  "
            f"extra memory {row['extra_peak_bytes'] / 1e6:,.0f} MB",
            flush=True,
        )
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
