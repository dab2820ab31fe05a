"""State of unfinished work as one file of named arrays: put in place by atomic rename, read back or ignored.

The bytes depend on the state alone, so equal states are equal files.
"""

import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dissect.errors import SpaceError

FORMAT = 3
_META = "__meta__"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of a file in an archive; at last the bytes of its name and extra field
_BROKEN = (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError)


@dataclass
class State:
    """meta: plain JSON values; arrays by name."""

    meta: dict[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


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
def opened(path: Path) -> Iterator[State]:
    """A state whose arrays are read, and checked, when they are asked for. Raises ValueError for another format, and
    OSError, KeyError, EOFError or zipfile.BadZipFile for damaged files."""
    with np.load(path, allow_pickle=False) as archive:
        meta = json.loads(archive[_META].tobytes())
        if meta.get("format") != FORMAT:
            raise ValueError(f"format {meta.get('format')}, expected {FORMAT}")
        yield State(meta, _Named(archive))


def places(path: Path, names: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """(name, offset, bytes) of arrays [n] uint8 in a state's file, which holds them as they are. Errors as `opened`."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        for name in names:
            with archive.open(f"{name}.npy") as entry:
                np.lib.format.read_magic(entry)
                (length,), _, _ = np.lib.format.read_array_header_1_0(entry)
                inside = entry.tell()
            start = archive.getinfo(f"{name}.npy").header_offset
            file.seek(start)
            fixed = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            yield name, start + _LOCAL_HEADER.size + fixed[-2] + fixed[-1] + inside, length


class _Named(Mapping[str, np.ndarray]):
    def __init__(self, archive: "np.lib.npyio.NpzFile") -> None:
        self._archive = archive

    def __getitem__(self, name: str) -> np.ndarray:
        found: np.ndarray = self._archive[name]
        return found

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._archive.files if name != _META)

    def __len__(self) -> int:
        return len(self._archive.files) - 1
