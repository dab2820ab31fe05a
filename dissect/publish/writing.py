"""Folders that cannot be written."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dissect.errors import DissectError

_REFUSED = {errno.EACCES: "permission denied", errno.EPERM: "permission denied", errno.EROFS: "a read-only disk"}


@contextmanager
def writing(what: str, folder: Path) -> Iterator[None]:
    """Raises DissectError, with the way out, where the disk does not let `what` be written into `folder`; any other
    OSError as it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        raise DissectError(
            f"{what} cannot be written into {folder} ({_REFUSED[error.errno]}): name another folder with --out DIR"
        ) from error
