"""`verify`: read every table and open every file; report each fault with file and row."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from broden.cli.common import EXIT_FAULTS, add_set, add_workers, print_json, printable

MOST_NOTES = 20


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser("verify", help="check every file", description=__doc__)
    add_set(parser, narrow=False)
    add_workers(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings; 0 when there are no faults, 3 when some files are at fault, 2 when no row can be used."""
    from broden.progress import Progress
    from broden.verifying import verify

    progress = Progress()
    report = verify(args.data, args.workers, progress)
    progress.close()
    if args.json:
        print_json(
            {
                "images": report.images,
                "excluded_images": report.excluded,
                "files": report.files,
                "faults": [finding._asdict() for finding in report.faults],
                "notes": [finding._asdict() for finding in report.notes],
            }
        )
    else:
        for finding in report.faults:
            row = "" if finding.row is None else f", row {finding.row}"
            print(f"{printable(finding.file)}{row}: {printable(finding.reason)}")
        for finding in report.notes[:MOST_NOTES]:
            print(f"note: {printable(finding.file)}: {printable(finding.reason)}", file=sys.stderr)
        if len(report.notes) > MOST_NOTES:
            print(f"note: {len(report.notes) - MOST_NOTES:,} more notes; see --json", file=sys.stderr)
        verdict = f"{len(report.faults):,} faults, {report.excluded:,} images unusable" if report.faults else "all good"
        print(f"{report.images:,} images, {report.files:,} files: {verdict}", file=sys.stderr)
    if not report.faults:
        return 0
    return EXIT_FAULTS if report.images else 2
