"""The records of a concept set: categories, labels, rows, label planes, batches.

Axes: N images, K planes, H W label map, h w picture, B images of a batch, S scalars.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_LABEL = 65535
"""Largest label number that a plane can hold: R + 256 G in 8 bits each."""

CATEGORIES = ("color", "object", "part", "material", "scene", "texture")
"""The six categories in Broden's order."""


@dataclass(frozen=True, slots=True)
class Category:
    """One row of category.csv. `index` is its row order, which is the category's number everywhere."""

    index: int
    name: str
    first: int
    last: int
    count: int
    frequency: int


@dataclass(frozen=True, slots=True)
class Label:
    """One concept. `categories` maps a category's name to its frequency there; `primary` is the largest coverage."""

    number: int
    name: str
    categories: Mapping[str, int]
    primary: str
    frequency: int
    coverage: float
    synonyms: tuple[str, ...]


class LabelTable(Sequence["Label | None"]):
    """Labels by number: `table[number]`, None where there is no such label (0 always).

    `names`: tuple of str or None, by number. `primary`: int16 category index by number, -1 where there is none.
    `known`: bool [65536], True where a plane may hold that number (0 included).
    """

    def __init__(self, labels: Sequence[Label], categories: Sequence[Category]) -> None:
        size = max((label.number for label in labels), default=0) + 1
        rows: list[Label | None] = [None] * size
        for label in labels:
            rows[label.number] = label
        position = {category.name: category.index for category in categories}
        self._rows = tuple(rows)
        self.names: tuple[str | None, ...] = tuple(None if row is None else row.name for row in rows)
        self.primary = np.full(size, -1, np.int16)
        self.known = np.zeros(MAX_LABEL + 1, np.bool_)
        self.known[0] = True
        for label in labels:
            self.primary[label.number] = position[label.primary]
            self.known[label.number] = True
        self.primary.setflags(write=False)
        self.known.setflags(write=False)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Label | None:  # type: ignore[override]
        return self._rows[number]

    def __iter__(self) -> Iterator[Label | None]:
        return iter(self._rows)

    def present(self) -> list[Label]:
        """The labels that exist, by number."""
        return [row for row in self._rows if row is not None]

    def find(self, text: str) -> Label | None:
        """The label with this number, name or synonym, or None. Exact name first, then without regard to case."""
        if text.isdecimal() and int(text) < len(self._rows):
            return self._rows[int(text)]
        folded = text.casefold()
        for row in self.present():
            if row.name == text:
                return row
        for row in self.present():
            if row.name.casefold() == folded or folded in (name.casefold() for name in row.synonyms):
                return row
        return None


class Plane(NamedTuple):
    """A label PNG of one category (an index), by its path relative to images/."""

    category: int
    path: str


class Scalar(NamedTuple):
    """A label of the whole image, of one category (an index). Number 0 is kept as published sets have it."""

    category: int
    number: int


class Row(NamedTuple):
    """One image. `position` counts the rows in use from 0; `line` is the line of index.csv (1 = header)."""

    position: int
    image: str
    split: str
    planes: tuple[Plane, ...]
    scalars: tuple[Scalar, ...]
    line: int


class ImageLabels(NamedTuple):
    """Labels of one image as stored: `planes` uint16 [K, H, W], 0 = unlabelled; `scalars` int64 [S]."""

    planes: NDArray[np.uint16]
    scalars: NDArray[np.int64]


class Fault(NamedTuple):
    """An image that was set aside, with the file that was at fault."""

    position: int
    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of the grid: positions first .. first + B - 1.

    `images`: uint8 [B, h, w, 3] RGB or None; `labels`: a list of B ImageLabels (None where invalid) or None;
    `valid`: bool [B]. An invalid slot is zeros, keeps its place, and stands once in `faults`.
    """

    first: int
    images: NDArray[np.uint8] | None
    labels: list[ImageLabels | None] | None
    valid: NDArray[np.bool_]
    faults: tuple[Fault, ...]

    def __len__(self) -> int:
        return len(self.valid)
