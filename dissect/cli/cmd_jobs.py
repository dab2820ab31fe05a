"""`dissect jobs`: what is queued, running and done."""

import argparse
import sys
import time

from dissect.cli.common import add_format, add_workspace, open_store, print_rows

COLUMNS = (
    "job", "name", "state", "shards", "done", "attempts", "images", "set_aside", "priority", "created_at",
    "finished_at", "error",
)  # fmt: skip


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("jobs", help="list jobs", description="Jobs of the workspace, oldest first.")
    parser.add_argument("-w", "--watch", action="store_true", help="show again every two seconds until all have ended")
    add_workspace(parser)
    add_format(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.store.ledger import OPEN, Ledger

    with open_store(args) as store:
        ledger = Ledger(store, time.time)
        while True:
            jobs = ledger.jobs()
            rows = [tuple(getattr(job, "id" if name == "job" else name) for name in COLUMNS) for job in jobs]
            if args.watch and sys.stdout.isatty():
                print("\x1b[2J\x1b[H", end="")
            print_rows(args, COLUMNS, rows)
            if not args.watch or not any(job.state in OPEN for job in jobs):
                return 0
            sys.stdout.flush()
            time.sleep(2)
