"""Thresholds from a file: CSV with layer, unit and threshold, as `dissect export --format thresholds` writes it.

Columns may stand in any order beside others; units are 0-based. One line for every unit of every layer asked for; an
empty threshold is infinite: no mask.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dissect.errors import SpecError

COLUMNS = ("layer", "unit", "threshold")


def read_thresholds(path: Path, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """{layer: [U] float32} of the layers asked for; others are passed over.

    Raises SpecError, naming line and column, for a file that is no such table, a unit that is repeated or missing, and
    a threshold that is no number.
    """
    found: dict[str, dict[int, float]] = {layer: {} for layer in layers}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            there = reader.fieldnames or ()
            absent = [name for name in COLUMNS if name not in there]
            if absent:
                raise SpecError(
                    f"thresholds {path}: no column {absent[0]!r}: expected {', '.join(COLUMNS)}, found "
                    f"{', '.join(there) or 'nothing'}"
                )
            for row in reader:
                if row["layer"] in found:
                    _take(found[row["layer"]], row, f"thresholds {path}, line {reader.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"thresholds {path} cannot be read: {error}") from None
    return {layer: _column(path, layer, values) for layer, values in found.items()}


def _take(values: dict[int, float], row: Mapping[str, str], where: str) -> None:
    try:
        unit = int(row["unit"])
        if unit < 0:
            raise ValueError
    except (TypeError, ValueError):
        raise SpecError(f"{where}, column unit: {row['unit']!r} is no unit, expected 0, 1, 2 …") from None
    if unit in values:
        raise SpecError(f"{where}, column unit: unit {unit} of layer {row['layer']!r} stands there twice")
    try:
        threshold = float(row["threshold"]) if row["threshold"] else math.inf
    except (TypeError, ValueError):
        threshold = math.nan
    if math.isnan(threshold):
        raise SpecError(f"{where}, column threshold: {row['threshold']!r} is no number")
    values[unit] = threshold


def _column(path: Path, layer: str, values: Mapping[int, float]) -> np.ndarray:
    if not values:
        raise SpecError(f"thresholds {path} have no line for layer {layer!r}")
    missing = sorted(set(range(max(values) + 1)) - values.keys())
    if missing:
        raise SpecError(f"thresholds {path} lack unit {missing[0]} of layer {layer!r}")
    return np.array([values[unit] for unit in range(len(values))], np.float32)
