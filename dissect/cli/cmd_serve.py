"""`dissect serve`: the pages and the query API over HTTP."""

import argparse
import sys

from dissect.cli.common import add_workspace, open_store, open_workspace

DESCRIPTION = """\
Show a workspace over HTTP, for reading: the pages as they lie on disk, and the tables with the filters of
`dissect query`. Nothing is ever written, and only this machine is answered unless --host says otherwise.

  dissect serve                                          http://127.0.0.1:8712/
  curl 'localhost:8712/api/units.csv?concept=dog&min_iou=0.04'
  curl 'localhost:8712/api/sql?sql=SELECT+count(*)+FROM+v_best_label'
  curl localhost:8712/reports/my-run/index.json          every page also as .json and .csv
"""
PORT = 8712


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from dissect.serve.limits import Limits

    parser = commands.add_parser(
        "serve",
        help="show a workspace over HTTP, for reading",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="port, 0 for any that is free (default: %(default)s)")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="a name by which browsers may call this server, besides localhost and IP addresses",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=float, default=Limits.seconds, metavar="S", help="seconds of one query (default: %(default)s)"
    )
    parser.add_argument(
        "--max-rows", type=int, default=Limits.rows, metavar="N", help="rows of one answer (default: %(default)s)"
    )
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.errors import SpecError
    from dissect.serve.limits import Limits

    if args.timeout <= 0 or args.max_rows < 1:
        raise SpecError("--timeout and --max-rows: expected numbers over 0")
    try:
        from dissect.serve import listening
        from dissect.serve.app import application
    except ImportError as error:
        raise SpecError(f"dissect serve needs {error.name}: pip install 'dissect[serve]'") from error
    open_store(args).close()  # a workspace that cannot be read is said now, not at the first request
    limits = Limits(seconds=args.timeout, rows=args.max_rows, page=min(Limits.page, args.max_rows))
    with listening.bound(args.host, args.port) as opened:
        address = listening.address(opened)
        if not listening.private(opened):
            print(f"anybody who reaches {address} can read every result of this workspace", file=sys.stderr)
        print(address, flush=True)
        listening.run(application(open_workspace(args), args.allow_host, limits), opened)
    return 0
