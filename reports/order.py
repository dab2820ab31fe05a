"""The published order of labels and units (NetDissect's bar graph and page order)."""

from dataclasses import dataclass

import numpy as np

from .pages import Concept
from .text import category_order


@dataclass(frozen=True)
class Bar:
    """One label of the bar graph."""

    concept: Concept
    units: int
    best: float
    sure: int
    """Units that one may believe; all where the run cannot tell."""


def detectors(concept: np.ndarray, iou: np.ndarray, cut: float) -> np.ndarray:
    """bool [U]: units with a label whose IoU is strictly above the cut."""
    return (iou > cut) & (concept >= 0)


def bars(
    concept: np.ndarray, iou: np.ndarray, cut: float, concepts: dict[int, Concept], categories: tuple[str, ...],
    sure: np.ndarray | None = None,
) -> list[Bar]:  # fmt: skip
    """Labels of the detectors: categories in the published order, inside one by (-units, -best IoU, number).
    sure: bool [U], units that one may believe."""
    chosen = detectors(concept, iou, cut)
    numbers, inverse, counts = np.unique(concept[chosen], return_inverse=True, return_counts=True)
    best = np.zeros(len(numbers))
    np.maximum.at(best, inverse, iou[chosen])
    rank = {name: place for place, name in enumerate(category_order(categories))}
    firm = counts if sure is None else np.bincount(inverse, sure[chosen], len(numbers)).astype(np.int64)
    found = [Bar(concepts[int(n)], int(k), float(b), int(s)) for n, k, b, s in zip(numbers, counts, best, firm)]
    return sorted(found, key=lambda b: (rank.get(b.concept.category, len(rank)), -b.units, -b.best, b.concept.number))


def published(concept: np.ndarray, iou: np.ndarray, cut: float, order: list[Bar]) -> np.ndarray:
    """Units in page order, int64 [U]: detectors by their label's place among the bars, then the rest; each by -IoU."""
    place = {bar.concept.number: index for index, bar in enumerate(order)}
    chosen = detectors(concept, iou, cut)
    group = np.array([place[int(c)] if d else len(place) for c, d in zip(concept, chosen)], dtype=np.int64)
    return np.lexsort((np.arange(len(iou)), -iou, group))
