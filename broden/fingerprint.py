"""What identifies a set of files: names, sizes, and enough content.

sha256 over a canonical text: the format version; name and sha256 of category.csv, label.csv, every c_*.csv and
index.csv; then, for every file that index.csv names, in the order in which it names them first, its name and its
size in bytes (-1 if it is not there), and for every k-th of them, from the first, also the sha256 of its bytes.
k = max(1, ceil(files / 1024)): sets of up to 1,024 files are hashed whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from broden.errors import InputFault
from broden.index import code_file
from broden.paths import Root
from broden.schema import Category, Row

SAMPLES = 1024


def files_of(rows: Sequence[Row]) -> list[str]:
    """Every file that the rows name, relative to images/, once, in order of first mention."""
    names: dict[str, None] = {}
    for row in rows:
        names[row.image] = None
        for plane in row.planes:
            names[plane.path] = None
    return list(names)


def tables_of(categories: Sequence[Category]) -> list[str]:
    """Names of the CSV files of a set."""
    return ["category.csv", "label.csv", *(code_file(category.name) for category in categories), "index.csv"]


def _sha256(root: Root, name: str) -> str:
    try:
        return hashlib.sha256(root.read(name, 2**31)).hexdigest()
    except InputFault:
        return "-"


def folder_fingerprint(root: Root, categories: Sequence[Category], rows: Sequence[Row]) -> str:
    """Hex sha256 that identifies a Broden-format folder; the rule stands at the head of this module."""
    digest = hashlib.sha256(b"broden fingerprint 1\n")
    for name in tables_of(categories):
        digest.update(f"{name}\t{_sha256(root, name)}\n".encode())
    files = files_of(rows)
    step = max(1, -(-len(files) // SAMPLES))
    for index, name in enumerate(files):
        line = f"{name}\t{root.size(f'images/{name}')}"
        if index % step == 0:
            line += "\t" + _sha256(root, f"images/{name}")
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
