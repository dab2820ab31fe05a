"""State of an unfinished run: one file, put in place by atomic rename, read back or ignored."""

import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dissect.errors import SpaceError

FORMAT = 1


@dataclass
class State:
    """meta: plain JSON values; arrays by name."""

    meta: dict[str, object]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def save(path: Path, state: State) -> None:
    """Replace the state file: written beside it, synced, renamed. Raises SpaceError on a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    meta = np.frombuffer(json.dumps({"format": FORMAT} | state.meta).encode(), np.uint8)
    try:
        with open(temporary, "wb") as file:
            np.savez(file, __meta__=meta, **state.arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SpaceError(f"cannot save the state of the run in {path.parent.name}: {error.strerror}") from error


def load(path: Path) -> State | None:
    """The saved state, or None where there is none or it cannot be believed."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError):
        return None
    meta = json.loads(arrays.pop("__meta__").tobytes())
    return State(meta, arrays) if meta.get("format") == FORMAT else None
