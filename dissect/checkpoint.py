"""State of unfinished work as one file of named arrays: put in place by atomic rename, read back or ignored.

The bytes depend on the state alone, so equal states are equal files.
"""

import json
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dissect.errors import SpaceError

FORMAT = 3
_META = "__meta__"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of a file in an archive; at last the bytes of its name and extra field
_AT_ONCE = 1 << 20  # bytes of an array that are read at once
_BROKEN = (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError)


@dataclass
class State:
    """meta: plain JSON values; arrays by name."""

    meta: dict[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@contextmanager
def _damage() -> Iterator[None]:
    """Whatever else reading a damaged archive raises, as what it is."""
    try:
        yield
    except (RuntimeError, struct.error, zlib.error, lzma.LZMAError) as error:  # of a damaged flag, length or method
        raise zipfile.BadZipFile(str(error)) from error


class Arrays(Mapping[str, np.ndarray]):
    """Arrays of an open file, read, and checked, when they are asked for. prefix: of the names that are seen."""

    def __init__(self, archive: "np.lib.npyio.NpzFile", prefix: str = "") -> None:
        self._archive, self._prefix = archive, prefix

    def __getitem__(self, name: str) -> np.ndarray:
        with _damage():
            found: np.ndarray = self._archive[self._prefix + name]
        return found

    def __iter__(self) -> Iterator[str]:
        start = len(self._prefix)
        return (name[start:] for name in self._archive.files if name != _META and name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def under(self, prefix: str) -> "Arrays":
        """Those whose names begin so, by the rest of their names."""
        return Arrays(self._archive, self._prefix + prefix)

    def into(self, name: str, out: np.ndarray) -> None:
        """Read an array into `out`, of its shape and dtype: large ones never lie in memory twice. Raises ValueError."""
        with _damage(), self._zip.open(f"{self._prefix}{name}.npy") as entry:
            np.lib.format.read_magic(entry)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(entry)
            if (shape, dtype) != (out.shape, out.dtype) or fortran:
                raise ValueError(f"{name} is {dtype} {list(shape)}, expected {out.dtype} {list(out.shape)}")
            for row in [out] if out.flags.c_contiguous else out:
                data = row.reshape(-1).view(np.uint8)
                for first in range(0, len(data), _AT_ONCE):
                    few = data[first : first + _AT_ONCE]
                    few[:] = np.frombuffer(entry.read(len(few)), np.uint8)

    def check(self) -> None:
        """Read all that is in the file once, and keep nothing of it. Raises zipfile.BadZipFile where it is damaged."""
        with _damage():
            damaged = self._zip.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} is damaged")

    @property
    def _zip(self) -> zipfile.ZipFile:
        assert self._archive.zip is not None, "arrays are read while their file is open"
        return self._archive.zip


@dataclass
class Opened:
    """A state whose file is open for reading."""

    meta: dict[str, Any]
    arrays: Arrays


class Sink(Protocol):
    """What bytes go into."""

    def write(self, data: bytes, /) -> int: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


@contextmanager
def writing(file: Sink, meta: Mapping[str, Any]) -> Iterator[Callable[[str, np.ndarray], None]]:
    """Puts named arrays into a file one by one, and at last `meta`, as it is then."""
    with zipfile.ZipFile(file, "w") as archive:

        def put(name: str, array: np.ndarray) -> None:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)

        yield put
        put(_META, np.frombuffer(json.dumps({"format": FORMAT, **meta}).encode(), np.uint8))


def save(path: Path, state: State) -> None:
    """Replace the state file: written beside it, synced, renamed. Raises SpaceError on a full disk."""
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            with writing(file, state.meta) as put:
                for name, array in state.arrays.items():
                    put(name, array)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SpaceError(f"cannot save the state of the run in {path.parent.name}: {error.strerror}") from error


def load(path: Path) -> State | None:
    """The saved state, or None where there is none or it cannot be believed."""
    try:
        with opened(path) as state:
            return State(state.meta, {name: state.arrays[name] for name in state.arrays})
    except _BROKEN:
        return None


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """A state whose arrays are read, and checked, when they are asked for. Raises ValueError for another format, and
    OSError, KeyError, EOFError or zipfile.BadZipFile for damaged files."""
    with ExitStack() as stack:
        with _damage():
            archive = stack.enter_context(np.load(path, allow_pickle=False))
            meta = json.loads(archive[_META].tobytes())
        if meta.get("format") != FORMAT:
            raise ValueError(f"format {meta.get('format')}, expected {FORMAT}")
        yield Opened(meta, Arrays(archive))


@contextmanager
def believed(path: Path, wanted: Callable[[Mapping[str, Any]], bool]) -> Iterator[Opened | None]:
    """A state with all of its arrays checked before the first is used; None where there is none, where it cannot be
    believed, or where its `meta` is not wanted."""
    with ExitStack() as stack:
        state: Opened | None = None
        try:
            found = stack.enter_context(opened(path))
            if wanted(found.meta):
                found.arrays.check()
                state = found
        except _BROKEN:
            pass
        yield state


def places(path: Path, names: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """(name, offset, bytes) of arrays [n] uint8 in a state's file, which holds them as they are. Errors as `opened`."""
    with _damage(), zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        for name in names:
            with archive.open(f"{name}.npy") as entry:
                np.lib.format.read_magic(entry)
                (length,), _, _ = np.lib.format.read_array_header_1_0(entry)
                inside = entry.tell()
            start = archive.getinfo(f"{name}.npy").header_offset
            file.seek(start)
            fixed = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            yield name, start + _LOCAL_HEADER.size + fixed[-2] + fixed[-1] + inside, length
