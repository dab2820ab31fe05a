"""The files of a run in shards, on a folder that all who measure share.

<cache>/<run id>/shards/request.json                      what was asked for, the same for every shard
<cache>/<run id>/shards/03-of-08-<sha256>.partial         what shard 3 of 8 left, named by its content
<cache>/<run id>/shards/03-of-08.took.json                seconds by phase and memory that it took
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from dissect.checkpoint import Sink
from dissect.errors import SpaceError, SpecError
from dissect.request import RunRequest
from dissect.workspace import Workspace

Took = dict[str, float]
Shard = tuple[int, int]
"""(i, n): shard i of n."""
_NAME = re.compile(r"(\d+)-of-(\d+)-([0-9a-f]{64})\.partial")
_REQUEST = "request.json"


class ShardFiles:
    """What lies in the folder of one run."""

    def __init__(self, workspace: Workspace, run_id: str) -> None:
        self.run_id = run_id
        self._workspace = workspace
        self._folder = workspace.cache_folder(run_id) / "shards"

    @staticmethod
    def waiting(workspace: Workspace) -> list[str]:
        """Ids of the runs that have shards in a workspace."""
        return sorted(path.parent.parent.name for path in workspace.root.glob(f"cache/*/shards/{_REQUEST}"))

    def keep_request(self, request: RunRequest) -> dict[str, Any]:
        """Put what was asked for where every shard finds it; its plain values. Raises SpaceError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        values = plain(request)
        self._put(_REQUEST, json.dumps(values, indent=1).encode())
        return values

    def request(self) -> RunRequest:
        """What was asked for. Raises SpecError where there is none."""
        try:
            return revived(json.loads((self._folder / _REQUEST).read_text()))
        except FileNotFoundError:
            known = ", ".join(self.waiting(self._workspace)) or "none"
            raise SpecError(f"no shards of run {self.run_id} in this workspace; runs with shards: {known}") from None

    def keep(self, shard: Shard, write: Callable[[Sink], Took]) -> Path:
        """Keep the partial of a shard, which is written into what is handed over, and what it took; the partial's file.
        Raises SpaceError."""

        def whole(file: _Written) -> str:
            took = write(file) | {"bytes": file.bytes}
            self._put(_took(shard), json.dumps(took).encode())
            return f"{_number(shard)}-{file.sha256.hexdigest()}.partial"

        return self._place(_number(shard), whole)

    def took(self, shard: Shard) -> Took:
        """What a shard took where it was measured: seconds by phase and as a whole, bytes of memory and of its partial.
        Empty where that is not known."""
        try:
            found: Took = json.loads((self._folder / _took(shard)).read_text())
        except (OSError, ValueError):
            return {}
        return found

    def partials(self, count: int) -> dict[int, Path]:
        """The shards that are there, of `count`, by number; a file whose content is not what its name says is none."""
        found = {}
        for path in sorted(self._folder.glob("*.partial")):
            match = _NAME.fullmatch(path.name)
            if match and int(match[2]) == count and _sha256(path) == match[3]:
                found[int(match[1])] = path
        return found

    def begun(self) -> int | None:
        """In how many shards the run was begun: where in several ways, the one of which most are there."""
        return max(self._counts(), key=lambda count: len(self.partials(count)) / count, default=None)

    def complete(self) -> dict[int, Path]:
        """All shards of the run. Raises SpecError naming those that are missing."""
        best: tuple[int, list[int]] | None = None
        for count in sorted(self._counts()):
            found = self.partials(count)
            absent = sorted(set(range(count)) - found.keys())
            if not absent:
                return found
            if best is None or len(absent) < len(best[1]):
                best = count, absent
        if best is None:
            raise SpecError(
                f"run {self.run_id} has no shards in this workspace: measure them with `dissect run … --shard i/n`"
            )
        count, absent = best
        named = ", ".join(f"{i}/{count}" for i in absent[:20])
        raise SpecError(f"run {self.run_id} lacks {len(absent)} of {count} shards: {named}; measure, then merge again")

    def forget(self) -> None:
        """Remove the partials, and what was left of unfinished ones: the run is finished."""
        for pattern in ("*.partial", ".*.tmp"):
            for path in self._folder.glob(pattern):
                path.unlink(missing_ok=True)

    def _counts(self) -> set[int]:
        names = [_NAME.fullmatch(path.name) for path in self._folder.glob("*.partial")]
        return {int(match[2]) for match in names if match}

    def _put(self, name: str, data: bytes) -> Path:
        def whole(file: _Written) -> str:
            file.write(data)
            return name

        return self._place(name, whole)

    def _place(self, aside: str, write: Callable[["_Written"], str]) -> Path:
        """Have a file written aside, sync it, and give it the name that `write` returns. Raises SpaceError; nothing is
        left then."""
        path = self._folder / f".{aside}.{os.getpid()}.tmp"
        try:
            with _Written(path) as file:
                name = write(file)
            with _told(path):
                path.replace(self._folder / name)
                folder = os.open(self._folder, os.O_RDONLY)  # the name must last as long as the content
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return self._folder / name


class _Written:
    """A new file that is written from start to end, for a with block; it is on the disk when the block is left without
    an error. bytes, sha256: of what was written. Raises SpaceError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _told(path):
            self._file = open(path, "wb")  # noqa: SIM115
        self.bytes, self.sha256 = 0, hashlib.sha256()

    def __enter__(self) -> "_Written":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
                with _told(self._path):
                    os.fsync(self._file.fileno())
        finally:
            self.close()

    def write(self, data: bytes, /) -> int:
        with _told(self._path):
            count = self._file.write(data)
        self.sha256.update(data)
        self.bytes += count
        return count

    def flush(self) -> None:
        with _told(self._path):
            self._file.flush()

    def close(self) -> None:
        with suppress(OSError):  # what it holds back belongs to a file that will not stay
            self._file.close()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raises SpaceError where a call of the system fails."""
    try:
        yield
    except OSError as error:
        raise SpaceError(f"cannot write {path}: {error.strerror}") from error


def copied(data: bytes, took: Took) -> Callable[[Sink], Took]:
    """For `ShardFiles.keep`: a partial that is at hand."""

    def write(file: Sink) -> Took:
        file.write(data)
        return took

    return write


def plain(request: RunRequest) -> dict[str, Any]:
    """A request as plain values, its paths made absolute."""
    values = dataclasses.asdict(request)
    for name in ("cache_dir", "thresholds"):
        values[name] = str(values[name].absolute()) if values[name] is not None else None
    if values["basis"] and Path(values["basis"]).is_file():
        values["basis"] = str(Path(values["basis"]).absolute())
    for name in ("data", "weights"):
        values[name] = str(Path(values[name]).absolute()) if values[name] is not None else None
    return values


def revived(values: dict[str, Any]) -> RunRequest:
    """The inverse of `plain`."""
    for name in ("layers", "mean", "std"):
        values[name] = tuple(values[name]) if values[name] is not None else None
    for name in ("cache_dir", "thresholds"):
        values[name] = Path(values[name]) if values[name] is not None else None
    return RunRequest(**values)


def _number(shard: Shard) -> str:
    return f"{shard[0]:02d}-of-{shard[1]:02d}"


def _took(shard: Shard) -> str:
    return f"{_number(shard)}.took.json"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
