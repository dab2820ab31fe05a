"""`stats`: one row for each concept in each of its categories, as CSV or JSON."""

from __future__ import annotations

import argparse
from typing import Any

from broden.cli.common import EXIT_FAULTS, add_set, add_workers, print_rows


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser("stats", help="figures of every concept", description=__doc__)
    add_set(parser)
    add_workers(parser)
    parser.add_argument("--format", choices=("csv", "json", "table"), default="csv")
    parser.add_argument("--recount", action="store_true", help="also count images and pixels in the planes themselves")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Print the rows."""
    import broden
    from broden.describing import RECOUNT_COLUMNS, STAT_COLUMNS, recount, stats
    from broden.progress import Progress

    data = broden.open(args.data, args.split, args.limit)
    counts, faults = None, 0
    columns: tuple[str, ...] = STAT_COLUMNS
    if args.recount:
        progress = Progress()
        counts, faults = recount(data, args.workers, progress)
        progress.close()
        columns = (*STAT_COLUMNS, *RECOUNT_COLUMNS)
    print_rows(stats(data, counts), columns, args.format)
    return EXIT_FAULTS if faults else 0
