"""What several commands share: options, output of tables."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EXIT_FAULTS = 3


def add_set(parser: argparse.ArgumentParser, narrow: bool = True) -> None:
    """The set to read, and what narrows it."""
    parser.add_argument("data", type=Path, help="Broden-format folder or packed set")
    if narrow:
        parser.add_argument("--split", help="only rows of this split (train, val)")
        parser.add_argument("--limit", type=int, help="only the first N rows")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """How many processes work."""
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=1)
    sys.stdout.write("\n")


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], form: str) -> None:
    """Rows as `table` (aligned text), `csv` or `json`."""
    if form == "json":
        print_json([{column: row[column] for column in columns} for row in rows])
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row[column] for column in columns] for row in rows)
    else:
        print_table([[_cell(row[column]) for column in columns] for row in rows], columns)


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else printable(str(value))


def printable(text: str) -> str:
    """Text without control characters, so that a name cannot steer a terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def print_table(cells: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    """Aligned text on standard output."""
    widths = [max([len(column), *(len(row[i]) for row in cells)]) for i, column in enumerate(columns)]
    for row in (columns, *cells):
        print("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
