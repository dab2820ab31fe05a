"""Numbers, statistics and tables of a set that we write, by the published rules (NetDissect's joinseg.py)."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from broden.errors import DataError, SpaceFault
from broden.index import CATEGORY_COLUMNS, CODE_COLUMNS, INDEX_COLUMNS, LABEL_COLUMNS, code_file
from broden.schema import MAX_LABEL
from broden.tables import table_bytes

Key = tuple[str, str]
"""A concept in one category: (category, name)."""

FACTS = "facts.csv"
CHECKSUMS = "checksums.csv"
CHECKSUM_COLUMNS = ("file", "bytes", "sha256")
TRAIN_SHARE = 0.7


def hashed_place(image: str) -> float:
    """Place of an image in the order of a set: the first 8 bytes of the md5 of its name, big-endian, over 2^64."""
    digest = hashlib.md5(image.encode("utf-8"), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(image: str) -> str:
    """train for 70 % of all names, val for the others."""
    return "train" if hashed_place(image) <= TRAIN_SHARE else "val"


@dataclass
class Tally:
    """How often each concept of each category occurs: images that hold it, and how much of an image it covers.

    `frequency[key]` counts images; `pixels[key]` counts label pixels of images with `area` pixels each, so that
    sums are exact and do not depend on the order; coverage = pixels / area.
    """

    area: int
    frequency: dict[Key, int] = field(default_factory=dict)
    pixels: dict[Key, int] = field(default_factory=dict)

    def add(self, key: Key, pixels: int, images: int = 1) -> None:
        """Count `images` more images in which `key` covers `pixels` in all."""
        self.frequency[key] = self.frequency.get(key, 0) + images
        self.pixels[key] = self.pixels.get(key, 0) + pixels

    def merge(self, other: Tally) -> None:
        """Add the counts of another part of the same set."""
        for key, images in other.frequency.items():
            self.add(key, other.pixels[key], images)

    def coverage(self, key: Key) -> float:
        """Whole images covered."""
        return self.pixels[key] / self.area


@dataclass(frozen=True)
class Numbering:
    """Label numbers by concept name, and category names in the order of category.csv."""

    number: Mapping[str, int]
    categories: tuple[str, ...]
    tables: Mapping[str, bytes]


def assign(tally: Tally, order: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None) -> Numbering:
    """Number the concepts by descending frequency (over all categories), then coverage, then name, from 1.

    Writes label.csv, category.csv and every c_<category>.csv as bytes. Categories stand by their lowest number,
    ties in the `order` given; a category of `order` without labels stands at the end with zeros.
    Raises DataError beyond 65,535 concepts.
    """
    by_name: dict[str, list[Key]] = {}
    for key in tally.frequency:
        by_name.setdefault(key[1], []).append(key)
    place = {name: index for index, name in enumerate(order)}
    total = {name: sum(tally.frequency[key] for key in keys) for name, keys in by_name.items()}
    area = {name: sum(tally.pixels[key] for key in keys) for name, keys in by_name.items()}
    names = sorted(by_name, key=lambda name: (-total[name], -area[name], name))
    if len(names) > MAX_LABEL:
        raise DataError("label.csv", None, f"{len(names):,} concepts; a label plane can number {MAX_LABEL:,}")
    number = {name: index for index, name in enumerate(names, 1)}
    labels = []
    for name in names:
        keys = sorted(by_name[name], key=lambda key: (-tally.frequency[key], place[key[0]]))
        shares = ";".join(f"{category}({tally.frequency[category, name]})" for category, _ in keys)
        also = ";".join((synonyms or {}).get(name, ()))
        labels.append((number[name], name, shares, total[name], f"{area[name] / tally.area:.6f}", also))
    tables = {"label.csv": table_bytes(LABEL_COLUMNS, labels)}
    rows: list[tuple[str, int, int, int, int]] = []
    for category in order:
        keys = sorted(
            (key for key in tally.frequency if key[0] == category),
            key=lambda key: (-tally.frequency[key], -tally.pixels[key], number[key[1]]),
        )
        numbers = [number[name] for _, name in keys]
        frequency = sum(tally.frequency[key] for key in keys)
        rows.append((category, min(numbers, default=0), max(numbers, default=0), len(keys), frequency))
        codes = [
            (code, number[key[1]], key[1], tally.frequency[key], f"{tally.coverage(key):.6f}")
            for code, key in enumerate(keys, 1)
        ]
        tables[code_file(category)] = table_bytes(CODE_COLUMNS, codes)
    rows.sort(key=lambda row: (row[1] == 0, row[1], place[row[0]]))
    tables["category.csv"] = table_bytes(CATEGORY_COLUMNS, rows)
    return Numbering(number, tuple(row[0] for row in rows), tables)


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One row of index.csv to be: cells by category."""

    image: str
    cells: Mapping[str, str]


def index_bytes(
    rows: Sequence[IndexRow], categories: Sequence[str], image_size: tuple[int, int], label_size: tuple[int, int]
) -> bytes:
    """index.csv in the published order (md5 of the image name), with the published split."""
    ordered = sorted(rows, key=lambda row: (hashed_place(row.image), row.image))
    sizes = (*image_size, *label_size)
    return table_bytes(
        (*INDEX_COLUMNS, *categories),
        ((row.image, split_of(row.image), *sizes, *(row.cells.get(c, "") for c in categories)) for row in ordered),
    )


def plane_names(stem: str, category: str, count: int) -> list[str]:
    """File names of the planes of a category: name_<category>.png, or name_<category>_<k>.png when several."""
    if count == 1:
        return [f"{stem}_{category}.png"]
    return [f"{stem}_{category}_{index}.png" for index in range(1, count + 1)]


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that appears under its name only when the block ends well. Raises DataError if `out` is taken."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(str(out), None, "exists and is not an empty folder; choose another")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise space(error, out) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def space(error: OSError, where: Path) -> Exception:
    """SpaceFault for a full disk, the error itself for anything else."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return SpaceFault(f"{where}: no space left; free some and start the same command again")
    return error


def checksum(name: str, data: bytes) -> tuple[str, int, str]:
    """A row of checksums.csv."""
    return name, len(data), hashlib.sha256(data).hexdigest()
