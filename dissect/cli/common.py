"""What every command shares: the workspace options and the open store."""

import argparse
from typing import TYPE_CHECKING

from dissect.workspace import DATABASE, DEFAULT, Workspace

if TYPE_CHECKING:
    from dissect.store import Store


def add_workspace(parser: argparse.ArgumentParser) -> None:
    """--workspace and --db."""
    group = parser.add_argument_group("workspace")
    group.add_argument(
        "--workspace",
        metavar="DIR",
        default=DEFAULT,
        help="folder of database, reports and cache (default: ./%(default)s)",
    )
    group.add_argument(
        "--db", metavar="URL", help=f"database instead of DIR/{DATABASE}: a SQLite file or postgresql+psycopg://…"
    )


def open_workspace(args: argparse.Namespace) -> Workspace:
    """The workspace that the options name. Raises SpecError."""
    return Workspace.at(args.workspace, args.db)


def open_store(args: argparse.Namespace, readonly: bool = True) -> "Store":
    """The store of that workspace. Raises SpecError, RetryLater."""
    from dissect.store import Store

    return Store.open(open_workspace(args), readonly=readonly)
