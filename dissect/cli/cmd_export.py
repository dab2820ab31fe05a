"""`dissect export`: a run as files for other tools."""

import argparse
import sys

from dissect.cli.common import add_workspace, open_store, print_rows, replacing

DESCRIPTION = """\
Write a run as a file.

  dissect export RUN --format netdissect-csv -o result.csv   the published CSV (one layer; units from 1)
  dissect export RUN --format parquet --table pairs -o pairs.parquet
  dissect export RUN --format thresholds -o thresholds.csv   layer,unit,threshold
"""
_FORMATS = ("netdissect-csv", "csv", "tsv", "json", "ndjson", "parquet", "arrow", "thresholds")


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "export",
        help="write a run as CSV, Parquet, JSON or thresholds",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="id or name")
    parser.add_argument("--format", choices=_FORMATS, default="csv", help="default: csv")
    parser.add_argument("--layer", metavar="L", help="one layer (default: all; netdissect-csv holds one)")
    parser.add_argument(
        "--table", choices=("units", "pairs", "concepts", "layers"), default="units",
        help="units: one row each (default); pairs: every stored pair",
    )  # fmt: skip
    parser.add_argument(
        "--unit-base", type=int, choices=(0, 1), help="netdissect-csv: number of the first unit (default: 1)"
    )
    parser.add_argument("--output", "-o", metavar="FILE", help="default: stdout")
    parser.add_argument(
        "--excel-safe", action="store_true", help="csv, tsv: put ' before cells that a spreadsheet would run"
    )
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.query import export

    with open_store(args) as store:
        found = store.get_run(args.run)
        if args.format == "netdissect-csv":
            lines = export.netdissect(store, found, args.layer, args.unit_base)
            if args.output is None:
                sys.stdout.flush()
                sys.stdout.buffer.writelines(line.encode() for line in lines)
                sys.stdout.buffer.flush()
            else:
                with replacing(args.output) as stream:
                    stream.writelines(lines)
            return 0
        if args.format == "thresholds":
            args.format = "csv"
            columns, rows = export.thresholds(store, found, args.layer)
        else:
            columns, rows = export.table(store, found, args.table, args.layer)
        print_rows(args, columns, rows, metadata=export.metadata(found))
    return 0
