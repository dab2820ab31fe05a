"""`dissect compare`: runs or layers side by side."""

import argparse
import json
from pathlib import Path

from dissect.cli.common import add_workspace, open_store

FACTS = ("units", "detectors", "unique_detectors", "unique_concepts")

DESCRIPTION = """\
Compare two to four finished runs (or layers of them, as RUN:LAYER): detectors and unique concepts by category, and
which concepts only one of them detects. Runs of different conventions are not compared.

  dissect compare demo demo-untrained
  dissect compare resnet:layer3 resnet:layer4 --json
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "compare",
        help="runs or layers side by side",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="name or id of a finished run, or RUN:LAYER")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the page (default: in the workspace's reports)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line of stdout")
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.errors import SpecError
    from dissect.publish import publish_compare

    if len(args.runs) < 2:
        raise SpecError("one run is nothing to compare: name two to four, as RUN or RUN:LAYER")
    with open_store(args) as store:
        page = publish_compare(store, args.runs, args.out)
        if not args.json:
            print(page)
            return 0
        sides = []
        for name in args.runs:
            title, _, wanted = name.partition(":")
            record = store.get_run(title)
            for layer in store.layers(record.id):
                if layer.name == wanted or not wanted:
                    facts = {key: getattr(layer, key) for key in FACTS}
                    sides.append({"run": record.id, "name": record.name, "layer": layer.name} | facts)
        print(json.dumps({"page": str(page), "sides": sides}))
    return 0
