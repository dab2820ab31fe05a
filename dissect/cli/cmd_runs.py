"""`dissect runs`: what is in the workspace."""

import argparse

from dissect.cli.common import add_format, add_workspace, open_store, print_rows

DESCRIPTION = """\
List the runs of a workspace: id, name, state, model, convention, data, images, layers, units, detectors.

  dissect runs
  dissect runs --format json
"""
_TABLE = (
    "run", "name", "state", "model", "convention", "data", "images", "excluded_images", "layers", "units", "detectors",
    "unique_concepts", "created_at",
)  # fmt: skip


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "runs", help="list runs", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_format(parser)
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.store.other_rows import RUN_COLUMNS, run_rows

    with open_store(args) as store:
        rows = run_rows(store)
    print_rows(args, RUN_COLUMNS, rows, shown=_TABLE)
    return 0
