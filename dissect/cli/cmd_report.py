"""`dissect report`: write the pages of a run again."""

import argparse
import sys
from pathlib import Path

from dissect.cli.common import add_workspace, open_store

DESCRIPTION = """\
Write the report of a finished run: a folder of HTML that opens from disk, without a network.
The old folder stays until the new one is complete; layers that did not change are not drawn again. Without --out the
pages of the workspace, of its syntheses and of its attributions are written again too.

  dissect report my-run
  dissect report my-run --out /media/stick/my-run --data broden1_224
  dissect report my-run --card layer4:12 > card.html       one unit, to put into a page of your own
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "report",
        help="write the pages of a run",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="name or id of a finished run")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write (default: reports/RUN in the workspace)"
    )
    parser.add_argument(
        "--data", metavar="DIR", help="the concept data, for pictures (default: where the run found it)"
    )
    parser.add_argument(
        "--max-report-bytes", type=int, metavar="N", help="bytes of the whole folder; pictures are thinned to fit"
    )
    parser.add_argument(
        "--card",
        metavar="LAYER:UNIT",
        help="print the card of one unit as HTML that needs no other file, and write nothing",
    )
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    import reports
    from dissect.publish import publish_beside, publish_run

    if args.card is not None:
        return _card(args)
    limit = args.max_report_bytes if args.max_report_bytes is not None else reports.DEFAULT_BYTES
    with open_store(args) as store:
        written = publish_run(store, args.run, args.out, args.data, limit)
        if args.out is None:
            publish_beside(store)
    for note in written.notes:
        print(note, file=sys.stderr)
    print(
        f"{reports.plural(written.redrawn, 'unit')} drawn, {reports.plural(written.kept, 'unit')} kept; "
        f"{reports.plural(written.files, 'file')}, {reports.integer(written.size)} bytes",
        file=sys.stderr,
    )
    print(written.index)
    return 0


def _card(args: argparse.Namespace) -> int:
    from dissect.errors import SpecError
    from dissect.publish import card

    layer, _, unit = args.card.rpartition(":")
    if not layer or not unit.isascii() or not unit.isdigit():
        raise SpecError(f"--card {args.card!r} names no unit: expected LAYER:UNIT, such as layer4:12")
    with open_store(args) as store:
        print(card(store, args.run, layer, int(unit), args.data).html)
    return 0
