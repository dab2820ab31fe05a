"""`dissect compare`: layers side by side."""

import argparse
import json
import sys
from pathlib import Path

from dissect.cli.common import add_workspace, open_store, print_rows

DESCRIPTION = """\
Compare layers of finished runs: detectors and unique concepts by category, concepts that only some detect, and what
became of the units. Name runs, or layers of them as RUN:LAYER, or all layers of a run by depth as RUN:*. Runs of
different conventions or concept data are refused.

  dissect compare demo demo-untrained
  dissect compare resnet:layer3 resnet:layer4 --json
  dissect compare resnet:*                            layers by depth
  dissect compare epoch10 epoch20 epoch30             checkpoints over training

Units are matched by number where both are the same layer of the same architecture, else by profile: the two units whose
IoU with all concepts correlates best, each the other's best. The table goes to stdout; docs/compare.md tells the JSON.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "compare",
        help="runs or layers side by side",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="name or id of a finished run, RUN:LAYER, or RUN:*")
    parser.add_argument(
        "--match",
        choices=("auto", "number", "profile", "none"),
        default="auto",
        help="how units are matched (default: auto)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the page (default: in the workspace's reports)"
    )
    parser.add_argument(
        "--format", choices=("table", "csv", "markdown", "json"), default="table", help="of stdout (default: table)"
    )
    parser.add_argument(
        "--json", action="store_const", const="json", dest="format", help="the whole comparison as one JSON object"
    )
    add_workspace(parser)
    parser.set_defaults(handler=run, output=None, excel_safe=False)


def run(args: argparse.Namespace) -> int:
    from dissect import comparison
    from dissect.publish import publish_comparison

    with open_store(args) as store:
        found = comparison.compare(store, args.runs, args.match)
        page = publish_comparison(store, found, args.out)
    if args.format == "json":
        print(json.dumps({"page": str(page)} | found.json(), allow_nan=False))
        return 0
    print_rows(args, *found.table())
    for line in (*found.sentences(), f"page  {page}"):
        print(line, file=sys.stderr)
    return 0
