"""The filter grammar: what can be asked for, one value for the command line, Python and HTTP alike.

Several values of one field are alternatives; different fields all have to hold. Runs go by id or name, concepts and
categories by name as in the data set.
"""

from dataclasses import dataclass
from typing import Literal

State = Literal["sound", "dead", "saturated", "nonfinite"]
STATES: tuple[State, ...] = ("sound", "dead", "saturated", "nonfinite")


@dataclass(frozen=True)
class UnitFilter:
    """Rows of the unit x concept table.

    rank 1 (the default) gives one row per unit, its label, also where it has none; rank R the R-th best concept of
    each unit, None every stored pair. The other fields filter those rows. min_iou and max_iou are inclusive.
    detectors: only rows above the layer's cut. search: part of the concept's name, whatever the case. state: of the
    unit. complete: every pair of the concepts or units named, from the counts file, whether stored or not, pairs
    that never meet included.
    """

    runs: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    units: tuple[int, ...] = ()
    concepts: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    min_iou: float | None = None
    max_iou: float | None = None
    rank: int | None = 1
    detectors: bool = False
    search: str | None = None
    state: State | None = None
    complete: bool = False


@dataclass(frozen=True)
class ConceptFilter:
    """Rows of the concept table, one per layer and concept: min_iou is that of the best unit, detectors keeps
    concepts that at least one unit detects."""

    runs: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    min_iou: float | None = None
    detectors: bool = False
    search: str | None = None


@dataclass(frozen=True)
class ImageFilter:
    """Exemplars of units: image is part of the file's name, concepts the labels of the units; excluded asks for the
    images that were set aside instead."""

    runs: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    units: tuple[int, ...] = ()
    concepts: tuple[str, ...] = ()
    image: str | None = None
    excluded: bool = False


@dataclass(frozen=True)
class Key:
    """Place of a row in the order of the unit x concept table; `layer` is the layer's id."""

    iou: float
    unit: int
    layer: int
    rank: int
