"""Result CSVs of Network Dissection and its relatives, in and out.

    unit,category,label,score,<category>-label,-truth,-activation,-intersect,-iou for every category

truth is G, activation A, intersect I. Everything that is stored is derived from these integers: IoU, labels, order,
detectors, both unique counts. What the file prints otherwise is checked, and a cell that disagrees by more than half
a unit of its last digit (or 1e-9) is recorded and left behind. An empty label (label 0 of the published files) becomes
a concept without a name, with a number <= 0.
"""

import csv
import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dissect import scores
from dissect.errors import SpecError
from dissect.store.records import CategoryRecord, ConceptRecord, LayerRecord, UnitTable

BRODEN = ("color", "object", "part", "material", "scene", "texture")  # index order of Broden's category.csv
PUBLISHED = ("object", "color", "material", "scene", "texture", "part")  # column order of the published files
PARTS = ("label", "truth", "activation", "intersect", "iou")
CUT = 0.04
_NEEDED = PARTS[:4]
_LARGEST = 1 << 53  # beyond it a printed float no longer holds an integer


@dataclass(frozen=True)
class Disagreement:
    """A printed cell that its row's integers contradict."""

    line: int
    column: str
    printed: str
    derived: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: the file says {self.printed!r}, its integers {self.derived!r}"


@dataclass(frozen=True)
class Style:
    """How a file is written, so that it can be written again."""

    columns: tuple[str, ...]
    delimiter: str = ","
    newline: str = "\r\n"
    unit_base: int = 1
    float_format: str = ".17g"
    decimal: str = "."
    activation_point: bool = True
    bom: bool = False
    order: tuple[int, ...] = ()

    @classmethod
    def published(cls, categories: Sequence[str], unit_base: int = 1) -> "Style":
        """The published files' own style over some categories."""
        known = [name for name in PUBLISHED if name in categories]
        names = known + [name for name in categories if name not in PUBLISHED]
        parts = [f"{name}-{part}" for name in names for part in PARTS]
        return cls(("unit", "category", "label", "score", *parts), unit_base=unit_base)


@dataclass(frozen=True)
class Cells:
    """The integers of a file: columns [U, K] over units and categories by index. label holds '' for the empty label."""

    categories: tuple[str, ...]
    label: np.ndarray
    truth: np.ndarray
    activation: np.ndarray
    intersect: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """float64 [U, K]."""
        return scores.iou(self.intersect, self.activation, self.truth)

    def best(self) -> np.ndarray:
        """Index of each unit's category: best IoU, ties to the higher index."""
        return len(self.categories) - 1 - self.iou[:, ::-1].argmax(axis=1)


@dataclass(frozen=True)
class Golden:
    """A file as read: its cells, how it was written, and what in it disagreed."""

    cells: Cells
    style: Style
    sha256: str
    disagreements: tuple[Disagreement, ...] = field(default=())


class _Reader:
    """One file being read; every complaint names line and column."""

    def __init__(self, path: Path, unit_base: int | None) -> None:
        self.path, self.unit_base = path, unit_base
        try:
            raw = path.read_bytes()
            text = raw.decode("utf-8-sig")
        except OSError as error:
            raise SpecError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            raise SpecError(f"{path}, line {line}: not UTF-8 text (byte {error.start})") from error
        self.sha256 = hashlib.sha256(raw).hexdigest()
        self.bom, self.newline = raw.startswith(b"\xef\xbb\xbf"), "\r\n" if b"\r\n" in raw else "\n"
        first = text.split("\n", 1)[0]
        self.delimiter = max(",;\t", key=first.count)
        self.rows = csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, strict=True)
        self.disagreements: list[Disagreement] = []

    def fail(self, line: int, column: str, message: str) -> SpecError:
        return SpecError(f"{self.path}, line {line}, column {column}: {message}")

    def read(self) -> Golden:
        lines = self._lines()
        line, header = next(lines, (1, []))
        columns = [name.strip().lower() for name in header]
        categories = self._categories(line, columns)
        place = {name: columns.index(name) for name in columns}
        table: list[tuple[int, list[str]]] = []
        for line, row in lines:
            if len(row) != len(columns):
                raise SpecError(f"{self.path}, line {line}: {len(row)} cells, expected {len(columns)} as in the header")
            table.append((line, [cell.strip() for cell in row]))
        if not table:
            raise SpecError(f"{self.path} has no rows: expected one per unit")
        units, base = self._units(table, place["unit"])
        shape = (len(table), len(categories))
        cells = Cells(
            categories, np.full(shape, "", object), *(np.zeros(shape, np.int64) for _ in range(3))
        )  # fmt: skip
        for unit, (line, row) in zip(units, table):
            for index, name in enumerate(categories):
                texts = {part: row[place[f"{name}-{part}"]] for part in _NEEDED}
                self._cell(cells, unit, index, line, name, texts)
        self._check_truths(cells, units, table)
        style = self._style(cells, units, table, columns, place, base)
        return Golden(cells, style, self.sha256, tuple(sorted(self.disagreements, key=lambda item: item.line)))

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        try:
            for row in self.rows:
                if row and any(cell.strip() for cell in row):
                    yield self.rows.line_num, row
        except csv.Error as error:
            raise SpecError(f"{self.path}, line {self.rows.line_num}: {error}") from error

    def _categories(self, line: int, columns: list[str]) -> tuple[str, ...]:
        """Categories in index order; every one must have what cannot be derived."""
        if not columns:
            raise SpecError(f"{self.path} is empty: expected a header with unit, category, label, score …")
        for name in columns:
            if columns.count(name) > 1:
                raise self.fail(line, name, "appears twice in the header")
        if "unit" not in columns:
            raise self.fail(line, "unit", "is missing from the header")
        found = []
        for name in columns:
            category, _, part = name.rpartition("-")
            if category and part in PARTS and category not in found:
                found.append(category)
        if not found:
            raise SpecError(f"{self.path}, line {line}: no <category>-label columns: expected e.g. object-label")
        for category in found:
            for part in _NEEDED:
                if f"{category}-{part}" not in columns:
                    raise self.fail(line, f"{category}-{part}", "is missing from the header")
        known = [name for name in BRODEN if name in found]
        return tuple(known + [name for name in found if name not in BRODEN])

    def _units(self, table: list[tuple[int, list[str]]], place: int) -> tuple[list[int], int]:
        """0-based units of the rows, and the file's base: 0 where there is a unit 0, else 1."""
        numbers = [self._integer(line, "unit", row[place]) for line, row in table]
        base = self.unit_base if self.unit_base is not None else 0 if 0 in numbers else 1
        seen: dict[int, int] = {}
        for number, (line, _) in zip(numbers, table):
            if number in seen:
                raise self.fail(line, "unit", f"unit {number} was already on line {seen[number]}")
            if not base <= number < len(table) + base:
                last = len(table) + base - 1
                raise self.fail(
                    line, "unit", f"unit {number} of {len(table)} rows: expected {base}..{last}, none missing"
                )
            seen[number] = line
        return [number - base for number in numbers], base

    def _cell(self, cells: Cells, unit: int, index: int, line: int, name: str, texts: dict[str, str]) -> None:
        label = texts["label"]
        truth, activation, meeting = (
            self._integer(line, f"{name}-{part}", texts[part], blank=0 if not label else None)
            for part in ("truth", "activation", "intersect")
        )
        union = truth + activation - meeting
        if meeting > truth:
            raise self.fail(line, f"{name}-intersect", f"{meeting} is more than the truth, {truth}")
        if meeting > activation and (label or meeting > union):
            raise self.fail(line, f"{name}-intersect", f"{meeting} is more than the activation, {activation}")
        cells.label[unit, index] = label
        cells.truth[unit, index], cells.activation[unit, index] = truth, activation
        cells.intersect[unit, index] = meeting

    def _integer(self, line: int, column: str, text: str, blank: int | None = None) -> int:
        """A count, also where it is printed as 1016043.0 or 1016043,0."""
        if not text and blank is not None:
            return blank
        value = _number(text)
        if value is None:
            raise self.fail(line, column, f"{text!r} is no number")
        if not math.isfinite(value) or value != int(value) or not 0 <= value <= _LARGEST:
            raise self.fail(line, column, f"{text!r} is no count: expected a whole number from 0")
        return int(value)

    def _check_truths(self, cells: Cells, units: list[int], table: list[tuple[int, list[str]]]) -> None:
        """A label has one truth in the whole file; the first one printed counts for the concept."""
        first: dict[tuple[int, str], int] = {}
        for unit, (line, _) in zip(units, table):
            for index, name in enumerate(cells.categories):
                truth = int(cells.truth[unit, index])
                if not cells.label[unit, index] and not cells.intersect[unit, index]:
                    continue
                known = first.setdefault((index, cells.label[unit, index]), truth)
                if known != truth:
                    self.disagreements.append(Disagreement(line, f"{name}-truth", str(truth), str(known)))

    def _style(
        self, cells: Cells, units: list[int], table: list[tuple[int, list[str]]], columns: list[str],
        place: dict[str, int], base: int,
    ) -> Style:  # fmt: skip
        iou, best = cells.iou, cells.best()
        printed: list[tuple[str, float]] = []
        for unit, (line, row) in zip(units, table):
            expected = {f"{name}-iou": float(iou[unit, index]) for index, name in enumerate(cells.categories)}
            expected["score"] = float(iou[unit, best[unit]])
            for column, value in expected.items():
                if column in place and not self._agrees(row[place[column]], value):
                    self.disagreements.append(Disagreement(line, column, row[place[column]], repr(value)))
                elif column in place:
                    printed.append((row[place[column]], value))
            name = cells.categories[best[unit]]
            for column, text in (("category", name), ("label", cells.label[unit, best[unit]])):
                if column in place and row[place[column]] != text:
                    self.disagreements.append(Disagreement(line, column, row[place[column]], text))
        order = _order(cells)
        own = tuple(units) if list(units) != order else ()
        if own and any(iou[a, best[a]] < iou[b, best[b]] for a, b in zip(own, own[1:])):
            self.disagreements.append(Disagreement(1, "score", "rows not in order", "descending score"))
            own = ()
        decimal = "," if any("," in text for text, _ in printed) else "."
        formats = (
            ".17g",
            "r",
            *(f".{digits}f" for digits in range(2, 13)),
            *(f".{digits}g" for digits in range(2, 17)),
        )
        matching = (kind for kind in formats if all(_float(value, kind, decimal) == text for text, value in printed))
        points = any(
            "." in row[place[f"{name}-activation"]] or "," in row[place[f"{name}-activation"]]
            for name in cells.categories
            for _, row in table
        )
        return Style(
            tuple(columns), self.delimiter, self.newline, base, next(matching, ".17g"), decimal, points, self.bom, own
        )

    @staticmethod
    def _agrees(text: str, value: float) -> bool:
        """Within half a unit of the last printed digit, or 1e-9."""
        number = _number(text)
        if number is None or not math.isfinite(number):
            return False
        mantissa, _, exponent = text.lower().replace(",", ".").partition("e")
        digits = len(mantissa.partition(".")[2]) - int(exponent or 0)
        return abs(number - value) <= max(1e-9, 0.5 * 10.0**-digits * (1 + 1e-9))


def _number(text: str) -> float | None:
    """A printed number, with a decimal point or comma."""
    if "_" in text or not text.isascii():
        return None
    try:
        return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        return None


def _float(value: float, kind: str, decimal: str = ".") -> str:
    text = repr(value) if kind == "r" else format(value, kind)
    return text.replace(".", decimal)


def _order(cells: Cells) -> list[int]:
    """Units by score, descending, ties to the lower unit."""
    iou = cells.iou.max(axis=1)
    return np.lexsort((np.arange(len(iou)), -iou)).tolist()


def read(path: str | Path, unit_base: int | None = None) -> Golden:
    """Read a result CSV; units are 0-based from here on. Raises SpecError naming line and column."""
    return _Reader(Path(path), unit_base).read()


def records(cells: Cells, layer: str) -> tuple[LayerRecord, list[ConceptRecord], list[CategoryRecord]]:
    """What the store keeps of a file: every cell as a score, and what follows from them."""
    units, kinds = cells.label.shape
    numbers: dict[tuple[int, str], int] = {}
    areas: dict[int, int] = {}
    names = sorted({(index, name) for index in range(kinds) for name in set(cells.label[:, index]) if name})
    for number, key in enumerate(names, 1):
        numbers[key] = number
    for index in range(kinds):  # the empty label: 0 in the last category, as published, below 0 elsewhere
        if (cells.label[:, index] == "").any():
            numbers[index, ""] = 0 if index == kinds - 1 else -1 - index
    concept = np.array([[numbers[k, cells.label[u, k]] for k in range(kinds)] for u in range(units)]).reshape(
        units, kinds
    )
    for number, truth in zip(concept.reshape(-1).tolist(), cells.truth.reshape(-1).tolist()):
        areas.setdefault(number, truth)
    iou, best = cells.iou, cells.best()
    top, label = iou[np.arange(units), best], concept[np.arange(units), best]
    order = np.argsort(-iou[:, ::-1], axis=1, kind="stable")
    order = kinds - 1 - order  # ties to the higher category
    unit = np.repeat(np.arange(units), kinds)
    column = order.reshape(-1)
    pairs = scores.ScoreTable(
        unit, concept[unit, column], np.tile(np.arange(1, kinds + 1), units), np.zeros(len(unit), np.int64),
        cells.intersect[unit, column], cells.activation[unit, column], cells.truth[unit, column], iou[unit, column],
    )  # fmt: skip
    by_concept = np.lexsort((unit, -pairs.iou, pairs.concept))
    begin = np.searchsorted(pairs.concept[by_concept], pairs.concept[by_concept])
    pairs.concept_rank[by_concept] = np.arange(len(unit)) - begin + 1
    nothing = np.full(units, np.nan)
    table = UnitTable(
        nothing, nothing, nothing, nothing, nothing, np.zeros(units, bool), np.zeros(units, bool),
        np.zeros(units, np.int64), np.full(units, -1), np.where(top > 0, label, 0), top,
    )  # fmt: skip
    over = iou > CUT
    record = LayerRecord(
        name=layer, map_h=0, map_w=0, activations=0, top_k=0, cut=CUT, detectors=int((top > CUT).sum()),
        unique_detectors=sum(len(np.unique(concept[over[:, k], k])) for k in range(kinds)),
        unique_concepts=len(np.unique(label[top > CUT])), units=table, unit_areas=cells.activation, scores=pairs,
    )  # fmt: skip
    concepts = [
        ConceptRecord(number, name or None, index, areas[number]) for (index, name), number in numbers.items()
    ]  # fmt: skip
    return record, concepts, [CategoryRecord(index, name) for index, name in enumerate(cells.categories)]


def style_values(style: Style) -> dict[str, Any]:
    """A style as plain JSON values, for a run's provenance."""
    return asdict(style) | {"columns": list(style.columns), "order": list(style.order)}


def style_of(values: dict[str, Any]) -> Style:
    """The style that `style_values` described."""
    return Style(**values | {"columns": tuple(values["columns"]), "order": tuple(values["order"])})


def write(cells: Cells, style: Style) -> Iterator[str]:
    """The file, line by line: every figure from the integers."""
    iou, best = cells.iou, cells.best()
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=style.delimiter, lineterminator=style.newline)

    def line(row: Sequence[str]) -> str:
        writer.writerow(row)
        text = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return text

    yield ("\ufeff" if style.bom else "") + line(style.columns)
    point = f"{style.decimal}0" if style.activation_point else ""
    for unit in style.order or _order(cells):
        top = int(best[unit])
        values = {
            "unit": str(unit + style.unit_base),
            "category": cells.categories[top],
            "label": str(cells.label[unit, top]),
            "score": _float(float(iou[unit, top]), style.float_format, style.decimal),
        }
        for index, name in enumerate(cells.categories):
            values[f"{name}-label"] = str(cells.label[unit, index])
            values[f"{name}-truth"] = str(cells.truth[unit, index])
            values[f"{name}-activation"] = f"{cells.activation[unit, index]}{point}"
            values[f"{name}-intersect"] = str(cells.intersect[unit, index])
            values[f"{name}-iou"] = _float(float(iou[unit, index]), style.float_format, style.decimal)
        yield line([values.get(name, "") for name in style.columns])
