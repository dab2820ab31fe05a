"""`synth`: generate a set with planted truth in all six categories."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from broden.cli.common import add_workers, print_json


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser("synth", help="generate a set with planted truth", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="images (default 1000)")
    parser.add_argument("--size", type=int, default=224, help="side of the pictures in pixels (default 224)")
    parser.add_argument("--concepts", type=int, metavar="C", help="concept names, 12..1197 (default: the basic ones)")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    add_workers(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Generate and say what was made."""
    import broden
    from broden.progress import Progress

    progress = Progress()
    start = time.monotonic()
    data = broden.synth(args.out, args.images, args.size, args.seed, args.concepts, args.workers, progress)
    seconds = time.monotonic() - start
    progress.close()
    labels = len(data.labels.present())
    if args.json:
        print_json({"data": str(args.out), "images": len(data), "labels": labels, "wall_s": seconds})
    else:
        rate = len(data) / seconds
        print(f"{args.out}: {len(data):,} images, {labels:,} concepts, {rate:,.0f} images/s", file=sys.stderr)
    return 0
