"""Reading and validating the tables of a Broden-format folder.

category.csv, label.csv, c_<category>.csv and index.csv as NetDissect's joinseg.py writes them. Every error is a
DataError with file and row. `Problems` collects errors instead, so that `verify` can report all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from broden.errors import DataError
from broden.paths import Root, fault_in
from broden.schema import MAX_LABEL, Category, Label, LabelTable, Plane, Row, Scalar
from broden.tables import Record, parse_table, read_table

CATEGORY_COLUMNS = ("name", "first", "last", "count", "frequency")
LABEL_COLUMNS = ("number", "name", "category", "frequency", "coverage", "syns")
CODE_COLUMNS = ("code", "number", "name", "frequency", "coverage")
INDEX_COLUMNS = ("image", "split", "ih", "iw", "sh", "sw")

MAX_SIDE = 65_535
MAX_COUNT = 2**62
_SHARE = re.compile(r"(.+)\((\d{1,18})\)", re.DOTALL)

Item = TypeVar("Item")


class Problems:
    """What to do with an error in a row: raise the first (the default) or keep them and leave the row out."""

    def __init__(self, keep: bool = False) -> None:
        self._keep = keep
        self.found: list[DataError] = []

    def add(self, error: DataError) -> None:
        """Raise `error`, or keep it."""
        if not self._keep:
            raise error
        self.found.append(error)

    def each(self, records: Iterable[Record], read: Callable[[Record], Item]) -> Iterator[Item]:
        """`read` applied to every record, without those that raise DataError."""
        try:
            for record in records:
                try:
                    item = read(record)
                except DataError as error:
                    self.add(error)
                    continue
                yield item
        except DataError as error:  # of the table itself: nothing more can be read from it
            self.add(error)


@dataclass(frozen=True)
class Tables:
    """All tables of a set. `image_size` and `label_size` are (height, width), the same in all rows kept."""

    categories: tuple[Category, ...]
    labels: LabelTable
    rows: tuple[Row, ...]
    image_size: tuple[int, int]
    label_size: tuple[int, int]


def code_file(category: str) -> str:
    """Name of the dense-code table of a category."""
    return f"c_{category}.csv"


def read_categories(root: Root, problems: Problems) -> tuple[Category, ...]:
    """category.csv; a row's order is the category's index. Raises DataError."""
    names: dict[str, int] = {}

    def read(record: Record) -> Category:
        name = record.text("name")
        if not name or "/" in name or fault_in(name) is not None:
            raise record.error(f"category name {name[:80]!r} cannot name a column and a file")
        if name in INDEX_COLUMNS:
            raise record.error(f"category name {name!r} is a fixed column of index.csv")
        if name in names:
            raise record.error(f"category {name!r} stands in row {names[name]} already")
        names[name] = record.line
        first, last, count = (record.integer(column, 0, MAX_LABEL) for column in ("first", "last", "count"))
        return Category(len(names) - 1, name, first, last, count, record.integer("frequency", 0, MAX_COUNT))

    found = tuple(problems.each(read_table(root, "category.csv", CATEGORY_COLUMNS), read))
    if not found:
        problems.add(DataError("category.csv", None, "no categories; expected at least one"))
    return tuple(Category(at, c.name, c.first, c.last, c.count, c.frequency) for at, c in enumerate(found))


def read_coverages(root: Root, categories: tuple[Category, ...], problems: Problems) -> list[dict[int, float]]:
    """Coverage by label number for each category, from c_<category>.csv. Raises DataError.

    An empty category (count 0) may do without its file.
    """
    tables: list[dict[int, float]] = []
    for category in categories:
        file = code_file(category.name)
        covered: dict[int, float] = {}

        def read(record: Record, covered: dict[int, float] = covered) -> None:
            number = record.integer("number", 1, MAX_LABEL)
            if number in covered:
                raise record.error(f"label {number} stands there twice")
            covered[number] = record.real("coverage")

        if category.count or root.exists(file):
            try:
                for _ in problems.each(read_table(root, file, CODE_COLUMNS), read):
                    pass
            except DataError as error:
                problems.add(error)
        tables.append(covered)
    return tables


def parse_shares(record: Record, known: dict[str, int]) -> dict[str, int]:
    """`wall(15553);part(29)`-style cell to a frequency by category. Raises DataError."""
    shares: dict[str, int] = {}
    for item in filter(None, record.text("category").split(";")):
        match = _SHARE.fullmatch(item)
        if match is None:
            raise record.error(f"column category holds {item[:80]!r}; expected name(count)")
        name = match.group(1)
        if name not in known:
            raise record.error(f"category {name[:80]!r} is not in category.csv")
        if name in shares:
            raise record.error(f"category {name!r} is named twice")
        shares[name] = int(match.group(2))
    if not shares:
        raise record.error("column category is empty; expected name(count)")
    return shares


def read_labels(
    root: Root, categories: tuple[Category, ...], coverages: list[dict[int, float]], problems: Problems
) -> LabelTable:
    """label.csv. Primary category = largest coverage in c_*.csv, ties to the later category. Raises DataError."""
    known = {category.name: category.index for category in categories}
    lines: dict[int, int] = {}
    names: dict[str, int] = {}

    def read(record: Record) -> Label:
        number = record.integer("number", 1, MAX_LABEL)
        name = record.text("name")
        if number in lines:
            raise record.error(f"label {number} stands in row {lines[number]} already")
        if not name:
            raise record.error(f"label {number} has no name")
        if name in names:
            raise record.error(f"name {name[:80]!r} is label {names[name]} already")
        shares = parse_shares(record, known)
        frequency = record.integer("frequency", 0, MAX_COUNT)
        coverage = record.real("coverage")
        lines[number] = record.line
        names[name] = number
        indices = [known[share] for share in shares]
        primary = max(indices, key=lambda index: (coverages[index].get(number, -1.0), index))
        synonyms = tuple(filter(None, record.text("syns").split(";")))
        return Label(number, name, shares, categories[primary].name, frequency, coverage, synonyms)

    found = list(problems.each(read_table(root, "label.csv", LABEL_COLUMNS), read))
    for category, covered in zip(categories, coverages, strict=True):
        stray = next((number for number in covered if number not in lines), None)
        if stray is not None:
            problems.add(DataError(code_file(category.name), None, f"label {stray} is not in label.csv"))
    return LabelTable(found, categories)


def read_rows(
    data: bytes, categories: tuple[Category, ...], labels: LabelTable, problems: Problems
) -> tuple[tuple[Row, ...], tuple[int, int], tuple[int, int]]:
    """index.csv: rows in file order, image size, label size (height, width). Raises DataError."""
    lines: dict[str, int] = {}
    sizes: dict[tuple[int, int, int, int], int] = {}
    known = labels.known
    clean: dict[str, str | None] = {}

    def check(record: Record, path: str) -> None:
        # Judge each folder once; a leaf of plain ASCII letters needs no Unicode work.
        folder, _, leaf = path.rpartition("/")
        if folder and folder not in clean:
            clean[folder] = fault_in(folder)
        reason = clean[folder] if folder else None
        if reason is None and (_PLAIN_LEAF.fullmatch(leaf) is None or leaf in (".", "..")):
            reason = fault_in(path)
        if reason is not None:
            raise record.error(reason)

    def read(record: Record) -> Row:
        image = record.text("image")
        check(record, image)
        if image in lines:
            raise record.error(f"image {image!r} stands in row {lines[image]} already")
        size = (
            record.integer("ih", 1, MAX_SIDE),
            record.integer("iw", 1, MAX_SIDE),
            record.integer("sh", 1, MAX_SIDE),
            record.integer("sw", 1, MAX_SIDE),
        )
        if sizes and size not in sizes:
            other, line = next(iter(sizes.items()))
            raise record.error(f"sizes ih, iw, sh, sw are {size}; row {line} has {other}; all rows must agree")
        planes: list[Plane] = []
        scalars: list[Scalar] = []
        for category in categories:
            cell = record.text(category.name)
            if not cell:
                continue
            for item in cell.split(";"):
                if item.isdecimal() and item.isascii():
                    number = int(item) if len(item) < 7 else MAX_LABEL + 1
                    if number > MAX_LABEL or not known[number]:
                        raise record.error(f"column {category.name} holds label {item[:20]}, which is not in label.csv")
                    scalars.append(Scalar(category.index, number))
                elif item:
                    check(record, item)
                    planes.append(Plane(category.index, item))
        lines[image] = record.line
        sizes.setdefault(size, record.line)
        return Row(len(lines) - 1, image, record.text("split"), tuple(planes), tuple(scalars), record.line)

    columns = (*INDEX_COLUMNS, *(category.name for category in categories))
    rows = tuple(problems.each(parse_table("index.csv", data, columns), read))
    ih, iw, sh, sw = next(iter(sizes), (0, 0, 0, 0))
    return rows, (ih, iw), (sh, sw)


_PLAIN_LEAF = re.compile(r"[A-Za-z0-9_.+=@,()#\- ]{1,250}")


def read_tables(root: Root, problems: Problems | None = None) -> Tables:
    """All tables of the Broden-format folder `root`. Raises DataError (with the default Problems)."""
    problems = problems or Problems()
    categories = read_categories(root, problems)
    labels = read_labels(root, categories, read_coverages(root, categories, problems), problems)
    try:
        data = root.read("index.csv", 2**31)
    except OSError as fault:
        raise DataError("index.csv", None, f"{getattr(fault, 'reason', fault)}; a Broden-format set needs it") from None
    rows, image_size, label_size = read_rows(data, categories, labels, problems)
    if not rows:
        problems.add(DataError("index.csv", None, "no images; expected at least one row"))
    return Tables(categories, labels, rows, image_size, label_size)
