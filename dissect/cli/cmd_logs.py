"""`dissect logs`: what happened to a job."""

import argparse
import time

from dissect.cli.common import add_workspace, open_store


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "logs", help="what happened to a job", description="Every attempt and its end, in order."
    )
    parser.add_argument("job", metavar="JOB", help="number, name or run id")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.store.ledger import OPEN, Ledger

    with open_store(args) as store:
        ledger, last = Ledger(store, time.time), 0
        while True:
            job = ledger.find(args.job)
            for number, at, worker, text in ledger.events(job.id, last):
                print(f"{at}  {worker}  {text}")
                last = number
            if not args.follow or job.state not in OPEN:
                return 0
            time.sleep(1)
