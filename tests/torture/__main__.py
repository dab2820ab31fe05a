"""`make torture`: inject faults into whole runs and count what was survived and what was lost.

    python -m tests.torture [--scale 1.0] [--only NAME]

At scale 1 it takes about an hour on two cores. Survived: the run, or the same command again, ended with rows equal to
those of a quiet run. Lost: anything else.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.torture import faults

FAULTS: dict[str, tuple[str, int, Callable[[Path, int], faults.Tally]]] = {
    "kill-run": ("SIGKILL of `dissect run` at a random moment", 100, faults.kill_run),
    "kill-worker": ("SIGKILL of a worker in a shard", 100, faults.kill_worker),
    "kill-child": ("SIGKILL of the process that measures a shard", 60, faults.kill_child),
    "zombies": ("a worker that comes back after its lease", 100, faults.zombies),
    "claims": ("8 writers claiming shards at once", 10_048, faults.claims),
    "partials": ("a bit flipped in a partial, or a part cut off", 200, faults.partials),
    "disk": ("a disk that is full after so many bytes", 20, faults.disk),
    "poison": ("an image that ends the process that reads it", 5, faults.poison),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="this share of the faults")
    parser.add_argument("--only", action="append", choices=FAULTS)
    options = parser.parse_args()
    print("| fault | injected | survived | lost |\n| --- | --- | --- | --- |", flush=True)
    lost = 0
    for name in options.only or FAULTS:
        title, count, inject = FAULTS[name]
        with tempfile.TemporaryDirectory() as folder:
            tally = inject(Path(folder), max(1, round(count * options.scale)))
        lost += tally.lost
        print(f"| {title} | {tally.injected:,} | {tally.survived:,} | {tally.lost:,} |", flush=True)
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
