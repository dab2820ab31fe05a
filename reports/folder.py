"""Put a folder of files in place at once: the old one stays until the new one is complete."""

import contextlib
import ctypes
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

_AT_FDCWD = -100
_EXCHANGE = 2


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one step where the system can (Linux renameat2), else False."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _EXCHANGE) == 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sweep(out: Path) -> None:
    """Remove what killed builds left; put back a report that a killed swap left aside."""
    aside = out.parent / f".{out.name}.old"
    if aside.is_dir() and not out.exists():
        aside.rename(out)
    for left in sorted(out.parent.glob(f".{glob_escape(out.name)}.*")):
        match = re.fullmatch(r"\.(\d+)\.(building|old)", left.name[len(out.name) + 1 :])
        if match and not _alive(int(match[1])):
            shutil.rmtree(left, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)


def glob_escape(name: str) -> str:
    """The name with glob's special characters taken literally."""
    return re.sub(r"([*?[])", r"[\1]", name)


@contextlib.contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` to fill; it takes the place of `out` at the end, or goes away on an error."""
    out.parent.mkdir(parents=True, exist_ok=True)
    _sweep(out)
    new = out.parent / f".{out.name}.{os.getpid()}.building"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        if not out.exists():
            new.rename(out)
        elif _exchange(new, out):
            shutil.rmtree(new, ignore_errors=True)
        else:
            aside = out.parent / f".{out.name}.old"
            out.rename(aside)
            new.rename(out)
            shutil.rmtree(aside, ignore_errors=True)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
