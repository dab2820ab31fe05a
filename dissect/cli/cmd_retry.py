"""`dissect retry`: queue a failed or cancelled job again."""

import argparse
import time

from dissect.cli.common import add_workspace, open_store


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "retry",
        help="queue a failed or cancelled job again",
        description="Queue a failed or cancelled job again; what is measured stays measured.",
    )
    parser.add_argument("job", nargs="+", metavar="JOB", help="number, name or run id")
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.store.ledger import Ledger

    with open_store(args, readonly=False) as store:
        ledger = Ledger(store, time.time)
        for job in [ledger.find(text) for text in args.job]:
            print(
                f"job {job.id} {job.name}: "
                + ("queued again" if ledger.retry(job.id) else "is neither failed nor cancelled")
            )
    return 0
