"""`make torture`: inject faults into whole runs and count what was survived and what was lost.

    python -m tests.torture [--scale 1.0 | --fixed] [--only NAME ...] [--list]

Survived: the run, or the same command again, ended with tables and pages byte-equal to those of a quiet run; hostile
input was refused or set aside, nothing in it ran, nothing outside was opened. Lost: anything else.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.families import FAMILIES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="this share of the faults")
    parser.add_argument("--fixed", action="store_true", help="the small part that every test run does")
    parser.add_argument("--only", action="append", choices=FAMILIES)
    parser.add_argument("--list", action="store_true", help="name the families and their counts")
    options = parser.parse_args()
    if options.list:
        for name, family in FAMILIES.items():
            print(f"{name:<12} {family.count:>7,}  {family.title}")
        return
    print("| fault | injected | survived | lost | |\n| --- | --- | --- | --- | --- |", flush=True)
    lost, began = 0, time.monotonic()
    for name in options.only or FAMILIES:
        family = FAMILIES[name]
        count = family.fixed if options.fixed else max(1, round(family.count * options.scale))
        if not count:
            continue
        with tempfile.TemporaryDirectory(prefix="torture-") as folder:
            tally = family.inject(Path(folder), count)
        lost += tally.lost
        print(
            f"| {family.title} | {tally.injected:,} | {tally.survived:,} | {tally.lost:,} | {tally.seen} |", flush=True
        )
    used = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"{time.monotonic() - began:.0f} s, {used:.0f} CPU s", file=sys.stderr)
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
