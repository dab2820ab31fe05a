"""The one protocol that every source of labelled images follows."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broden import decode
from broden.errors import DataError, InputFault
from broden.paths import Root

Names = tuple[str, ...]
"""What a source calls a label: the preferred name, then synonyms. Empty: unlabelled on purpose."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True, slots=True)
class Layer:
    """Labels of one category, number by pixel [H, W]. `names` lists every number that may occur."""

    category: str
    numbers: NDArray[np.integer]
    names: Mapping[int, Names]
    file: str
    scaled: bool = False
    """Whether the map may have another resolution than the picture, at the same shape."""


@dataclass(slots=True)
class Sample:
    """One labelled image. `data` are the bytes of its file, or None where there is only an array."""

    image: NDArray[np.uint8]
    data: bytes | None
    layers: list[Layer] = field(default_factory=list)
    scalars: list[tuple[str, Names]] = field(default_factory=list)


class Source(ABC):
    """A set of labelled images. Categories and names are its own; `broden.building` unifies them."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def image_name(self, index: int) -> str:
        """Name of an image, unique within the source, with or without suffix."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """An image with its labels. Raises InputFault."""


class FolderSource(Source):
    """A source that lies in a folder, which is never left and never written to."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self.root = Root(path)

    def picture(self, name: str) -> Sample:
        """A sample with the picture `name` and no labels yet. Raises InputFault."""
        data = self.root.read(name)
        try:
            return Sample(decode.pixels(data), data)
        except decode.DecodeError as error:
            raise InputFault(name, str(error)) from None

    def mask(self, name: str, channels: bool = False) -> NDArray[np.integer]:
        """A mask as values [H, W], or with `channels` as RGB [H, W, 3]. Raises InputFault."""
        try:
            array = decode.mask(self.root.read(name))
        except decode.DecodeError as error:
            raise InputFault(name, str(error)) from None
        if (array.ndim == 3) != channels:
            wanted = "RGB" if channels else "one value a pixel (grey or palette)"
            raise InputFault(name, f"mask of shape {array.shape}; expected {wanted}")
        return array

    def text(self, name: str) -> list[str]:
        """Lines of a UTF-8 text file. Raises DataError."""
        from broden.tables import decode_text

        try:
            return decode_text(name, self.root.read(name)).splitlines()
        except InputFault as fault:
            raise DataError(self.where(name), None, fault.reason) from None

    def where(self, name: str) -> str:
        """A file of this source as an error should name it."""
        return f"{self.name}: {name}"

    def files(self, folder: str, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[str]:
        """Files under a folder, relative to it, by name. Links to folders are not followed. Raises DataError."""
        top = self.root.path / folder if folder else self.root.path
        if not top.is_dir():
            raise DataError(self.where(folder), None, "no such folder")
        wanted = tuple(suffixes)
        found = []
        for here, folders, names in os.walk(top):
            folders.sort()
            base = os.path.relpath(here, top)
            found += [n if base == "." else f"{base}/{n}" for n in names if n.lower().endswith(wanted)]
        return sorted(found)


def stem(name: str) -> str:
    """A file name without its suffix, folders kept."""
    head, _, tail = name.rpartition("/")
    tail = tail.rpartition(".")[0] or tail
    return f"{head}/{tail}" if head else tail


def numbered(names: Mapping[int, str | Names], ignore: Iterable[int] = (0,)) -> dict[int, Names]:
    """A names table: single names as tuples, `ignore` unlabelled."""
    table = {number: (name,) if isinstance(name, str) else name for number, name in names.items()}
    return {**table, **dict.fromkeys(ignore, ())}


def option(options: dict[str, Any], key: str, kind: type, default: Any = None) -> Any:
    """Take an option out of a source's table. Raises DataError for a wrong type or, without default, absence."""
    value = options.pop(key, default)
    if value is None:
        raise DataError("spec", None, f"a source needs the option {key!r}")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DataError("spec", None, f"option {key!r} is {value!r}; expected {kind.__name__}")
    return value
