"""`dissect worker`: do what is queued."""

import argparse

from dissect.cli.common import add_workspace, open_workspace

DESCRIPTION = """\
Do queued jobs until none is left. Start as many as the machine carries; each shard is done by a child process, so a
crash costs an attempt, not the worker. After three the image that ends the process is looked for and set aside.

The first Ctrl-C or TERM gives the shard back and ends with 130 or 143, USR1 with 75; a second one ends at once.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "worker", help="do queued jobs", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--forever", action="store_true", help="wait for more when nothing is left")
    parser.add_argument("--lease", type=float, default=60.0, metavar="S", help="seconds without a sign of life (60)")
    parser.add_argument("--pause", type=float, default=5.0, metavar="S", help="seconds before a second attempt (5)")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.process import live_long
    from dissect.service.logs import worker_log
    from dissect.service.worker import Worker, worker_name

    live_long()
    workspace = open_workspace(args)
    with worker_log(workspace, worker_name(), args.log_format) as log:
        return Worker(workspace, log, args.lease, args.pause, args.forever).run()
