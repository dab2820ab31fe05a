"""Errors of the database driver, said in the user's terms."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, NoSuchModuleError

from dissect.errors import DissectError, RetryLater, SpaceError, SpecError, TooSlow

_KINDS: tuple[tuple[tuple[str, ...], type[DissectError], str], ...] = (
    (("interrupted", "statement timeout"), TooSlow, "took too long to answer: ask for less"),
    (("locked", "busy", "lock timeout", "deadlock"), RetryLater, "is in use by another process: try again"),
    (("is full", "no space left", "disk full"), SpaceError, "cannot grow: the disk is full"),
    (("out of memory",), SpaceError, "ran out of memory"),
    (("readonly database", "read-only"), SpecError, "cannot be written: the file or its folder is read-only"),
    (("unable to open",), SpecError, "cannot be opened: no such file, or no permission for it or its folder"),
    (("not a database", "malformed"), DissectError, "is damaged or no SQLite file: restore it from a copy"),
    (("connection", "could not translate"), RetryLater, "cannot be reached"),
)


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
        raise DissectError(f"database {where}: {cause}") from error
