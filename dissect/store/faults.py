"""Errors of the database driver, said in the user's terms."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, NoSuchModuleError, OperationalError

from dissect.errors import DissectError, RetryLater, SpaceError, SpecError, TooSlow

_KINDS: tuple[tuple[tuple[str, ...], type[DissectError], str], ...] = (
    (("interrupted", "statement timeout"), TooSlow, "took too long to answer: ask for less"),
    (("locked", "busy", "lock timeout", "deadlock"), RetryLater, "is in use by another process: try again"),
    (("is full", "no space left", "disk full"), SpaceError, "cannot grow: the disk is full"),
    (("out of memory",), SpaceError, "ran out of memory"),
    (("readonly database", "read-only"), SpecError, "cannot be written: the file or its folder is read-only"),
    (("unable to open",), SpecError, "cannot be opened: no such file, or no permission for it or its folder"),
    (("not a database", "malformed"), DissectError, "is damaged or no SQLite file: restore it from a copy"),
)
_REFUSALS = ("authentication failed", "no password supplied", "no pg_hba.conf entry", " does not exist")


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise DissectError, SpecError, SpaceError or RetryLater naming the database instead of a driver's error."""
    try:
        yield
    except NoSuchModuleError as error:
        raise SpecError(f"database {where}: no driver for this URL ({error}); see the extra [postgres]") from error
    except ImportError as error:
        raise SpecError(f"database {where} needs {error.name}: pip install 'dissect[postgres]'") from error
    except DBAPIError as error:
        text = str(error.orig).strip().splitlines()
        cause = text[0] if text else type(error.orig).__name__
        for words, kind, message in _KINDS:
            if any(word in cause.lower() for word in words):
                raise kind(f"database {where} {message} ({cause})") from error
        if _out_of_reach(error):
            if any(words in cause for words in _REFUSALS):
                raise SpecError(f"database {where} does not let us in ({cause})") from error
            raise RetryLater(f"database {where} cannot be reached ({cause})") from error
        raise DissectError(f"database {where}: {cause}") from error


def _out_of_reach(error: DBAPIError) -> bool:
    """Whether a server is away, going or coming: what is said of a lost connection is the system's (no route to host,
    broken pipe, …), so the class counts, not the words. SQLSTATE classes 08 and 57P; none where no server spoke."""
    if isinstance(error.orig, sqlite3.Error):
        return False
    state: str | None = getattr(error.orig, "sqlstate", None)
    lost = isinstance(error, OperationalError | InterfaceError) and state is None
    return lost or error.connection_invalidated or (state or "").startswith(("08", "57P"))
