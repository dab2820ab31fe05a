"""`images`: which images contain a concept, as a list or as a contact sheet with masks drawn."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from broden.cli.common import EXIT_FAULTS, add_set, add_workers, print_rows, printable


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser("images", help="which images contain X", description=__doc__)
    add_set(parser)
    add_workers(parser)
    parser.add_argument("--concept", action="append", required=True, help="name, number or synonym; again for AND")
    parser.add_argument("--category", help="count only what stands under this category")
    parser.add_argument("--min-coverage", type=float, default=0.0, metavar="X", help="share of the image, 0..1")
    parser.add_argument("--top", type=int, metavar="N", help="only the N most covered (sheet: 60 unless given)")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a contact sheet instead of a list")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Print the matches or write the sheet."""
    import broden
    from broden.finding import find_images, lookup
    from broden.progress import Progress
    from broden.sheet import contact_sheet

    data = broden.open(args.data, args.split, args.limit)
    labels = lookup(data, args.concept)
    progress = Progress()
    matches, faults = find_images(data, labels, args.category, args.min_coverage, args.workers, progress)
    progress.close()
    for file, reason in faults:
        print(f"left out: {printable(file)}: {printable(reason)}", file=sys.stderr)
    if args.html is not None:
        shown = matches[: args.top or 60]
        args.html.write_text(contact_sheet(data, labels, shown, len(matches), args.category), encoding="utf-8")
        print(f"{len(matches):,} images, {len(shown):,} shown: {args.html}", file=sys.stderr)
    else:
        rows = [match._asdict() for match in matches[: args.top]]
        print_rows(rows, ("position", "image", "split", "coverage"), args.format)
    return EXIT_FAULTS if faults else 0
