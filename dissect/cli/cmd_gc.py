"""`dissect gc`: throw away what no run needs."""

import argparse
import time

from dissect.cli.common import add_workspace, open_store


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "gc",
        help="free the disk of what no run needs",
        description="Lists shards and half-done work of runs that have ended, caches of runs that are gone, and files "
        "that a killed process was writing; --yes removes them. Counts and exemplars of finished runs stay.",
    )
    parser.add_argument("--yes", action="store_true", help="remove them")
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.progress import size
    from dissect.service.cleaning import remove, rubbish, size_of
    from dissect.store.ledger import Ledger

    total = 0
    with open_store(args) as store:
        for path in list(rubbish(store, Ledger(store, time.time))):
            found = size_of(path)
            total += found
            print(f"{size(found):>10}  {path.relative_to(store.workspace.root)}")
            if args.yes:
                remove(path)
    print(
        f"{size(total)} {'removed' if args.yes else 'can be removed: repeat with --yes'}"
        if total
        else "nothing to remove"
    )
    return 0
