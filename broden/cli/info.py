"""`info`: what a set holds."""

from __future__ import annotations

import argparse
from typing import Any

from broden.cli.common import add_set, print_json, print_table, printable


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser("info", help="counts, sizes, sources, fingerprint", description=__doc__)
    add_set(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Print the description."""
    import broden
    from broden.describing import info

    found: Any = info(broden.open(args.data, args.split, args.limit))
    if args.json:
        print_json(found)
        return 0
    height, width = found["image_size"]
    rows, columns = found["label_size"]
    print(f"{printable(found['name'])} ({found['storage']})")
    print(f"images       {found['images']:,} of {height} x {width}, {found['unlabelled']:,} without labels")
    print(f"labels       {found['labels']:,} concepts; {found['planes']:,} planes of {rows} x {columns}")
    print(f"whole-image  {found['scalars']:,} labels")
    print("splits       " + ", ".join(f"{printable(name)} {count:,}" for name, count in found["splits"].items()))
    print("sources      " + ", ".join(f"{printable(name)} {count:,}" for name, count in found["sources"].items()))
    print(f"fingerprint  {found['fingerprint']}")
    print()
    numbers = ("labels", "primary", "frequency")
    table = [
        [
            printable(c["name"]),
            f"{c['labels']:,}",
            f"{c['primary']:,}",
            f"{c['frequency']:,}",
            printable(", ".join(c["most"])),
        ]
        for c in found["categories"]
    ]
    print_table(table, ("category", *numbers, "most frequent"))
    return 0
