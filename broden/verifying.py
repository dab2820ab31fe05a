"""Every table read, every file opened, every fault listed with file and row."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from broden.counting import Counts
from broden.dataset import PACK_FILE, FolderDataset
from broden.errors import DataError, InputFault
from broden.index import Problems, Tables, read_tables
from broden.parallel import cores, ordered
from broden.paths import Root
from broden.progress import OnProgress
from broden.schema import Row
from broden.tables import read_table
from broden.writing import CHECKSUM_COLUMNS, CHECKSUMS, checksum

CHUNK = 64


class Finding(NamedTuple):
    """Something wrong: the file (relative to the set), the row of index.csv or of the table itself, the reason."""

    file: str
    row: int | None
    reason: str


@dataclass
class Report:
    """What `verify` found. `faults` make data unusable or untrue; `notes` are odd but harmless."""

    images: int = 0
    files: int = 0
    faults: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    excluded: int = 0


def check_chunk(
    shared: tuple[str, Tables], task: tuple[Sequence[Row], Mapping[str, tuple[int, str]]]
) -> tuple[list[Finding], list[Finding], int, Counts]:
    """Open the files of some rows: faults, notes, images at fault, counts of the good ones."""
    root, tables = shared
    data = FolderDataset(Root(root), tables)
    rows, sums = task
    faults: list[Finding] = []
    notes: list[Finding] = []
    excluded = 0
    counts = Counts.empty(len(tables.categories), len(tables.labels))
    for row in rows:
        bad, labels = data.check(row, sums)
        faults += [Finding(f"images/{fault.file}", row.line, fault.reason) for fault in bad]
        excluded += bool(bad)
        if labels is not None:
            counts.update(row, labels)
            notes += _strangers(data, row, labels.planes)
    return faults, notes, excluded, counts


def _strangers(data: FolderDataset, row: Row, planes: np.ndarray) -> list[Finding]:
    """Labels in a plane of a category that label.csv does not give them."""
    found = []
    for (category, name), plane in zip(row.planes, planes, strict=True):
        here = data.categories[category].name
        for number in np.unique(plane).tolist():
            label = data.labels[number]
            if label is not None and here not in label.categories:
                text = f"label {number} ({label.name}) is not of category {here} in label.csv"
                found.append(Finding(f"images/{name}", row.line, text))
    return found


def verify(path: str | os.PathLike[str], workers: int | None = None, progress: OnProgress | None = None) -> Report:
    """Check a whole set. Raises DataError only if there is no folder or nothing in it can be read as a set."""
    root = Root(path)
    report = Report()
    if root.exists(PACK_FILE):
        from broden.packing import verify_pack

        return verify_pack(root, report, workers or cores(), progress)
    problems = Problems(keep=True)
    try:
        tables = read_tables(root, problems)
    except DataError as error:
        problems.found.append(error)
        report.faults = [Finding(e.file, e.row, e.reason) for e in problems.found]
        return report
    report.faults = [Finding(error.file, error.row, error.reason) for error in problems.found]
    sums = _read_sums(root, report)
    _check_rows(root, tables, sums, report, workers or cores(), progress)
    _unlisted(root, tables, report)
    return report


def _read_sums(root: Root, report: Report) -> dict[str, tuple[int, str]]:
    """checksums.csv, if there is one: (bytes, sha256) by file. Files outside images/ are compared at once."""
    if not root.exists(CHECKSUMS):
        return {}
    sums: dict[str, tuple[int, str]] = {}
    try:
        for record in read_table(root, CHECKSUMS, CHECKSUM_COLUMNS):
            name = record.text("file")
            sums[name] = (record.integer("bytes", 0, 2**62), record.text("sha256"))
            if name.startswith("images/"):
                continue
            try:
                good = checksum(name, root.read(name, 2**31)) == (name, *sums[name])
                reason = "content is not what checksums.csv says"
            except InputFault as fault:
                good, reason = False, fault.reason
            if not good:
                report.faults.append(Finding(name, None, reason))
    except DataError as error:
        report.faults.append(Finding(error.file, error.row, error.reason))
    return {name.removeprefix("images/"): value for name, value in sums.items()}


def _check_rows(
    root: Root,
    tables: Tables,
    sums: Mapping[str, tuple[int, str]],
    report: Report,
    workers: int,
    progress: OnProgress | None,
) -> None:
    rows = tables.rows
    report.images = len(rows)
    report.files = sum(1 + len(row.planes) for row in rows)
    chunks = [rows[first : first + CHUNK] for first in range(0, len(rows), CHUNK)]
    tasks = ((chunk, {name: sums[name] for name in _names(chunk) if name in sums}) for chunk in chunks)
    bare = Tables(tables.categories, tables.labels, (), tables.image_size, tables.label_size)
    counts = Counts.empty(len(tables.categories), len(tables.labels))
    done = 0
    if len(chunks) < 4:
        workers = 1
    results = ordered(__name__, "check_chunk", (str(root.path), bare), tasks, workers)
    for chunk, (faults, notes, excluded, part) in zip(chunks, results, strict=True):
        report.faults += faults
        report.notes += notes
        report.excluded += excluded
        counts.merge([part])
        done += len(chunk)
        if progress:
            progress("verifying", done, len(rows))
    if not report.faults:
        report.notes += _statistics(tables, counts)


def _names(rows: Sequence[Row]) -> list[str]:
    return [name for row in rows for name in (row.image, *(plane.path for plane in row.planes))]


def _statistics(tables: Tables, counts: Counts) -> list[Finding]:
    """Frequencies of label.csv that a count of the files does not confirm."""
    notes = []
    for label in tables.labels.present():
        for category in tables.categories:
            said = label.categories.get(category.name, 0)
            found = int(counts.images[category.index, label.number])
            if said != found:
                text = f"label {label.number} ({label.name}) is in {found} images as {category.name}; label.csv: {said}"
                notes.append(Finding("label.csv", None, text))
    return notes


def _unlisted(root: Root, tables: Tables, report: Report) -> None:
    """Files under images/ that no row names: a note with the number and the first of them."""
    listed = {name for row in tables.rows for name in _names([row])}
    images = root.path / "images"
    stray: list[str] = []
    for folder, _, files in os.walk(images):
        base = Path(folder).relative_to(images).as_posix()
        stray += [name for file in files if (name := file if base == "." else f"{base}/{file}") not in listed]
    if stray:
        text = f"{len(stray):,} files are named by no row of index.csv; first: {min(stray)!r}"
        report.notes.append(Finding("images", None, text))
