"""A concept set as the rest of the program sees it, whatever it is stored in."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from broden import decode
from broden.errors import DataError, InputFault
from broden.fingerprint import folder_fingerprint
from broden.index import Tables, read_tables
from broden.paths import Root
from broden.schema import Category, ImageLabels, LabelTable, Row

Size = int | tuple[int, int] | None
"""A picture size: None as stored, an int for a square, or (height, width)."""

PACK_FILE = "pack.json"


def as_size(size: Size) -> tuple[int, int] | None:
    """(height, width) of a Size. Raises ValueError."""
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if not (0 < height <= 16384 and 0 < width <= 16384):
        raise ValueError(f"size is {size}; expected 1..16,384 pixels a side")
    return height, width


class Dataset(ABC):
    """Rows in file order (narrowed by `split` and `limit`), labels, and random access to pictures and planes.

    Safe to read from several threads at once.
    """

    def __init__(self, root: Path, tables: Tables, split: str | None, limit: int | None) -> None:
        rows = tables.rows
        if split is not None:
            rows = tuple(row for row in rows if row.split == split)
            if not rows:
                there = sorted({row.split for row in tables.rows})
                raise DataError("index.csv", None, f"no image of split {split!r}; found {', '.join(there)}")
        if limit is not None:
            if limit < 1:
                raise DataError("index.csv", None, f"limit is {limit}; expected at least 1 image")
            rows = rows[:limit]
        self._origins = [row.position for row in rows]
        if len(rows) != len(tables.rows):
            rows = tuple(row._replace(position=position) for position, row in enumerate(rows))
        self.root = root
        self.name = root.name
        self.split = split
        self.limit = limit
        self.categories: tuple[Category, ...] = tables.categories
        self.labels: LabelTable = tables.labels
        self.image_size = tables.image_size
        self.label_size = tables.label_size
        self.rows: tuple[Row, ...] = rows
        self.all_rows: tuple[Row, ...] = tables.rows

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<broden.Dataset {self.name!r}: {len(self)} images, {len(self.labels.present())} labels>"

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 hex of the whole set (not of the split or limit in use); see broden.fingerprint."""

    @abstractmethod
    def read_image(self, position: int, size: Size = None) -> NDArray[np.uint8]:
        """Picture of `rows[position]`, RGB uint8 [h, w, 3], squashed to `size` if given. Raises InputFault."""

    @abstractmethod
    def read_labels(self, position: int) -> ImageLabels:
        """Labels of `rows[position]` as stored, planes in the order of `rows[position].planes`. Raises InputFault."""

    def _scalars(self, row: Row) -> NDArray[np.int64]:
        return np.array([scalar.number for scalar in row.scalars], np.int64)


class FolderDataset(Dataset):
    """A Broden-format folder as its authors publish it."""

    def __init__(self, folder: Root, tables: Tables, split: str | None = None, limit: int | None = None) -> None:
        super().__init__(folder.path, tables, split, limit)
        self._folder = folder
        self._fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        """See Dataset. Computed on first use and kept."""
        if self._fingerprint is None:
            self._fingerprint = folder_fingerprint(self._folder, self.categories, self.all_rows)
        return self._fingerprint

    def read_bytes(self, name: str) -> bytes:
        """Bytes of a file by its name relative to images/. Raises InputFault naming it."""
        try:
            return self._folder.read(f"images/{name}")
        except InputFault as fault:
            raise InputFault(name, fault.reason) from None

    def read_image(self, position: int, size: Size = None) -> NDArray[np.uint8]:
        """See Dataset."""
        name = self.rows[position].image
        return self.decode_image(name, self.read_bytes(name), size)

    def decode_image(self, name: str, data: bytes, size: Size) -> NDArray[np.uint8]:
        """Bytes of a picture file to pixels of the set's size. Raises InputFault."""
        try:
            return decode.pixels(data, self.image_size, as_size(size))
        except decode.DecodeError as error:
            raise InputFault(name, str(error)) from None

    def _decode_plane(self, name: str, data: bytes) -> NDArray[np.uint16]:
        try:
            plane = decode.label_plane(data, self.label_size)
        except decode.DecodeError as error:
            raise InputFault(name, str(error)) from None
        known = self.labels.known[plane]
        if not known.all():
            raise InputFault(name, f"label {int(plane[~known][0])} is not in label.csv")
        return plane

    def read_labels(self, position: int) -> ImageLabels:
        """See Dataset."""
        row = self.rows[position]
        return ImageLabels(self.read_row_planes(row), self._scalars(row))

    def read_row_planes(self, row: Row) -> NDArray[np.uint16]:
        """Planes of a row, [K, H, W]. Raises InputFault."""
        planes = np.zeros((len(row.planes), *self.label_size), np.uint16)
        for index, (_, name) in enumerate(row.planes):
            planes[index] = self._decode_plane(name, self.read_bytes(name))
        return planes

    def check(self, row: Row, sums: Mapping[str, tuple[int, str]]) -> tuple[list[InputFault], ImageLabels | None]:
        """Open every file of a row. Returns all faults, and the labels if there are none.

        `sums` may give (bytes, sha256 hex) of files by their name relative to images/.
        """
        faults: list[InputFault] = []
        planes = np.zeros((len(row.planes), *self.label_size), np.uint16)
        for index, name in enumerate((row.image, *(plane.path for plane in row.planes))):
            try:
                data = self.read_bytes(name)
                if index == 0:
                    self.decode_image(name, data, None)
                else:
                    planes[index - 1] = self._decode_plane(name, data)
                if name in sums and sums[name] != (len(data), hashlib.sha256(data).hexdigest()):
                    raise InputFault(name, "content is not what checksums.csv says")
            except InputFault as fault:
                faults.append(fault)
        return faults, None if faults else ImageLabels(planes, self._scalars(row))


def open(path: str | os.PathLike[str], split: str | None = None, limit: int | None = None) -> Dataset:
    """Open a Broden-format folder or a packed set.

    `split` keeps the rows with that split, `limit` the first so many of them, in file order.
    Raises DataError, with file and row, when the set as a whole cannot be used.
    """
    root = Root(path)
    if root.exists(PACK_FILE):
        from broden.packed import PackedDataset

        return PackedDataset(root, split, limit)
    return FolderDataset(root, read_tables(root), split, limit)
