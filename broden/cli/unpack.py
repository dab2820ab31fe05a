"""`unpack`: write a packed set as a Broden-format folder again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from broden.cli.common import EXIT_FAULTS, add_set, add_workers


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser("unpack", help="write a packed set as a folder", description=__doc__)
    add_set(parser, narrow=False)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    add_workers(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Unpack."""
    from broden.packing import unpack
    from broden.progress import Progress

    progress = Progress()
    faults = unpack(args.data, args.out, args.workers, progress)
    progress.close()
    if faults:
        print(f"{faults:,} images were broken when packed; their files are not written", file=sys.stderr)
    return EXIT_FAULTS if faults else 0
