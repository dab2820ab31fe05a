"""The one place where a name from a data set becomes an opened file.

Nothing outside the root is ever opened: names are judged as text first, folders are resolved once and must
lie inside, a link is resolved and judged before anything is opened, opening itself follows no link, and only
regular files of bounded size are read.
"""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from pathlib import Path

from broden.errors import DataError, InputFault

MAX_FILE_BYTES = 256 * 2**20
"""No single image or plane may be larger. A Broden picture has some 20 kB."""

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_UNSEEN = ("Cc", "Cs", "Zl", "Zp")


def fault_in(name: str) -> str | None:
    """Why `name` may not be used as a path relative to a data set, or None if it may.

    Judged as text only. Unicode forms that another system would read as a dot, a slash or a backslash are
    refused too, so that a set means the same files everywhere.
    """
    if not name:
        return "empty file name"
    if len(name.encode("utf-8", "surrogatepass")) > 4000:
        return "file name longer than 4,000 bytes"
    plain = name.isascii()  # it has no other form, and a set names hundreds of thousands
    for form in (name,) if plain else (name, unicodedata.normalize("NFKC", name)):
        if not (plain and form.isprintable()) and any(unicodedata.category(letter) in _UNSEEN for letter in form):
            return f"control character in the file name {name!r}"
        if "\\" in form:
            return f"backslash in the file name {name!r}; expected forward slashes"
        if form.startswith("/") or (len(form) > 1 and form[1] == ":" and form[0].isalpha()):
            return f"absolute path {name!r}; expected a path inside the set"
        if any(part in ("", ".", "..") for part in form.split("/")):
            return f"path {name!r} has an empty, '.' or '..' component and could leave the set"
        # A look-alike slash would make two components of one: count them in both forms.
        if form.count("/") != name.count("/"):
            return f"path {name!r} has look-alike separators"
    return None


class Root:
    """A folder that is read and never left."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.realpath(path))
        if not self.path.is_dir():
            raise DataError(str(path), None, "no such folder; expected a Broden-format folder or a packed set")
        self._prefix = str(self.path).rstrip("/") + "/"
        self._folders: dict[str, str | None] = {}

    def _inside(self, real: str) -> bool:
        return real.startswith(self._prefix)

    def _folder(self, name: str) -> str | None:
        """Real path of the folder `name`, or None if it leads outside."""
        if name not in self._folders:
            real = os.path.realpath(self._prefix + name)
            self._folders[name] = real if self._inside(real + "/") else None
        return self._folders[name]

    def open(self, name: str) -> int:
        """A file descriptor of the regular file `name`, opened for reading. Raises InputFault."""
        reason = fault_in(name)
        if reason is not None:
            raise InputFault(name, reason)
        folder, _, leaf = name.rpartition("/")
        base = self._folder(folder)
        if base is None:
            raise InputFault(name, "a link on the way leads outside the set")
        path = f"{base}/{leaf}"
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                path = os.path.realpath(path)
                if not self._inside(path):
                    raise InputFault(name, "link that leads outside the set")
                status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                raise InputFault(name, "not a regular file")
            handle = os.open(path, _FLAGS)
        except InputFault:
            raise
        except OSError as error:
            raise InputFault(name, _plain(error)) from None
        # What was judged and what was opened may differ when somebody swaps files: a link is never followed here.
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise InputFault(name, "not a regular file")
        return handle

    def read(self, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
        """The bytes of the file `name`, a path relative to the root. Raises InputFault."""
        handle = self.open(name)
        try:
            size = os.fstat(handle).st_size
            if size > limit:
                raise InputFault(name, f"file of {size:,} bytes; at most {limit:,} are read")
            data = os.read(handle, size + 1)
            while 0 < len(data) < size:
                more = os.read(handle, size - len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            if isinstance(error, InputFault):
                raise
            raise InputFault(name, _plain(error)) from None
        finally:
            os.close(handle)
        return data

    def size(self, name: str) -> int:
        """Bytes of the file `name`, or -1 if it cannot be reached inside the root."""
        if fault_in(name) is not None:
            return -1
        folder, _, leaf = name.rpartition("/")
        base = self._folder(folder)
        if base is None:
            return -1
        try:
            status = os.lstat(f"{base}/{leaf}")
            if stat.S_ISLNK(status.st_mode):
                real = os.path.realpath(f"{base}/{leaf}")
                if not self._inside(real):
                    return -1
                status = os.lstat(real)
        except (OSError, ValueError):
            return -1
        return status.st_size if stat.S_ISREG(status.st_mode) else -1

    def exists(self, name: str) -> bool:
        """Whether `name` is a regular file inside the root."""
        return self.size(name) >= 0


def _plain(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "no such file"
    return (error.strerror or str(error)).lower()
