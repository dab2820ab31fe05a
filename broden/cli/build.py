"""`build`: one concept set from any labelled images. Started again after a stop, it goes on."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from broden.cli.common import EXIT_FAULTS, add_workers, print_json, printable


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser("build", help="unify labelled images into one set", description=__doc__)
    parser.add_argument("spec", type=Path, metavar="SPEC.toml", help="what to build (see broden/building/spec.py)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    add_workers(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Build and say what was made and what was left out."""
    from broden.building import FAULTS, build
    from broden.paths import Root
    from broden.progress import Progress
    from broden.tables import read_table

    progress = Progress()
    start = time.monotonic()
    data = build(args.spec, args.out, args.workers, progress)
    progress.close()
    faults = list(read_table(Root(args.out), FAULTS, ("image", "file", "reason")))
    labels = len(data.labels.present())
    if args.json:
        result = {"data": str(args.out), "images": len(data), "labels": labels, "faults": len(faults)}
        print_json({**result, "fingerprint": data.fingerprint, "wall_s": time.monotonic() - start})
    else:
        for record in faults[:10]:
            text = f"left out: {record.text('image')}: {record.text('file')}: {record.text('reason')}"
            print(printable(text), file=sys.stderr)
        print(f"{args.out}: {len(data):,} images, {labels:,} concepts, {len(faults):,} left out", file=sys.stderr)
    return EXIT_FAULTS if faults else 0
