"""Counts of finished passes on disk, so that a run of many passes holds those of one in memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dissect.errors import SpaceError


class Shelf:
    """One file [U, L] int64 for each layer in `folder`, filled with ranges of units in ascending order."""

    def __init__(self, folder: Path, labels: int) -> None:
        self.folder, self.labels = folder, labels

    def put(self, layer: int, first: int, rows: np.ndarray) -> None:
        """Keep rows [n, L] of units first .. first + n. Raises SpaceError on a full disk."""
        path = self._file(layer)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "r+b" if path.exists() else "w+b") as file:
                file.truncate(8 * first * self.labels)
                file.seek(0, 2)
                file.write(np.ascontiguousarray(rows, np.int64).data)
        except OSError as error:
            raise SpaceError(f"cannot put counts aside in {path.parent.name}: {error.strerror}") from error

    def get(self, layer: int, first: int, last: int) -> np.ndarray:
        """Rows [last - first, L] of what was kept, mapped from the file. It may be removed meanwhile."""
        shape = (last - first, self.labels)
        return np.memmap(self._file(layer), np.int64, "r", 8 * first * self.labels, shape)

    def whole(self, layer: int, pieces: Sequence[np.ndarray]) -> np.ndarray:
        """The counts [U, L] that ranges of units make up: mapped, where all of them were kept here."""
        units = sum(len(piece) for piece in pieces)
        if all(isinstance(piece, np.memmap) for piece in pieces):
            return self.get(layer, 0, units)
        return np.concatenate(pieces)

    def _file(self, layer: int) -> Path:
        return self.folder / f"counts-{layer}.bin"
