"""What every command shares: the workspace options, the open store, and writing rows."""

import argparse
import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dissect.errors import SpaceError, SpecError
from dissect.workspace import DATABASE, DEFAULT, Workspace

if TYPE_CHECKING:
    from dissect.store import Store

FORMATS = ("table", "csv", "tsv", "json", "ndjson", "markdown", "parquet", "arrow")


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


def add_format(parser: argparse.ArgumentParser) -> None:
    """--format, --excel-safe and --output."""
    group = parser.add_argument_group("output")
    group.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    group.add_argument(
        "--output", "-o", metavar="FILE", help="write to a file (put in place when complete) instead of stdout"
    )
    group.add_argument(
        "--excel-safe", action="store_true", help="csv, tsv: put ' before cells that a spreadsheet would run"
    )


def print_rows(
    args: argparse.Namespace,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    shown: Sequence[str] | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write rows as the options of `add_format` say; tables for eyes keep to the columns `shown`, Parquet and Arrow
    files carry the metadata.

    Raises SpecError for a missing extra or a file that cannot be written, SpaceError on a full disk.
    """
    from dissect.query import formats

    if args.format in ("table", "markdown"):
        columns, rows = _for_eyes(columns, rows, shown)
    if args.output is None:
        formats.write(sys.stdout, args.format, columns, rows, args.excel_safe, sys.stdout.isatty(), metadata)
        return
    with replacing(args.output) as stream:
        formats.write(stream, args.format, columns, rows, args.excel_safe, metadata=metadata)


def _for_eyes(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], shown: Sequence[str] | None
) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
    """Fewer columns, and a run by its name where it has one."""
    names = list(shown or [name for name in columns if name != "run_name"])
    places = [columns.index(name) for name in names]
    if "run" not in names or "run_name" not in columns:
        return names, ([row[place] for place in places] for row in rows)
    run, title = columns.index("run"), columns.index("run_name")
    return names, ([row[title] or row[run] if at == run else row[at] for at in places] for row in rows)


@contextmanager
def replacing(path: str) -> Iterator[IO[str]]:
    """A text file (UTF-8, plain line ends) put in place only when it is complete. Raises SpecError, SpaceError."""
    target = Path(path)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with aside.open("w", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(target)
    except OSError as error:
        kind = SpaceError if error.errno == errno.ENOSPC else SpecError
        raise kind(f"cannot write {target}: {error.strerror}") from error
    finally:
        aside.unlink(missing_ok=True)
