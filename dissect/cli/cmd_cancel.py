"""`dissect cancel`: stop a job."""

import argparse
import time

from dissect.cli.common import add_workspace, open_store


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "cancel",
        help="stop a job",
        description="Stop a job; its workers notice within a third of their lease. What is measured stays.",
    )
    parser.add_argument("job", nargs="+", metavar="JOB", help="number, name or run id")
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.store.ledger import Ledger

    with open_store(args, readonly=False) as store:
        ledger = Ledger(store, time.time)
        for job in [ledger.find(text) for text in args.job]:
            print(f"job {job.id} {job.name}: " + ("cancelled" if ledger.cancel(job.id) else "had ended already"))
    return 0
