"""Counts -> IoU, labels, detectors and the stored score table. Pure functions on integers; float64 ratios.

U units, L = largest label number + 1, K categories. A concept is scored under its primary category.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BEST_CONCEPTS = 20  # of each unit, in the score table
BEST_UNITS = 200  # of each concept, in the score table
REALS = frozenset({"iou", "iou_low", "iou_high", "phi", "iqr", "ap"})  # columns of the score table that are float64
_BLOCK = 2 << 20  # scores worked on at a time


def iou(intersection: np.ndarray, unit_area: np.ndarray, concept_area: np.ndarray) -> np.ndarray:
    """I / (A + G - I) as float64, 0 where nothing meets; the three arrays broadcast."""
    union = unit_area + concept_area - intersection
    return np.divide(intersection, union, out=np.zeros(intersection.shape), where=intersection > 0)


@dataclass(frozen=True)
class Counts:
    """What scores are made of: intersection [U, L], area [U, K], concept_area [L] (int64), primary [L] category index
    or -1 where a number is no concept."""

    intersection: np.ndarray
    area: np.ndarray
    concept_area: np.ndarray
    primary: np.ndarray

    @property
    def concepts(self) -> np.ndarray:
        """Numbers that are concepts, ascending."""
        return np.flatnonzero(self.primary >= 0)

    def iou(self, units: slice, numbers: np.ndarray) -> np.ndarray:
        """IoU of a range of units with the given concepts: [units, numbers] float64."""
        return iou(
            np.asarray(self.intersection[units][:, numbers]),
            self.area[units][:, self.primary[numbers]],
            self.concept_area[numbers],
        )


@dataclass(frozen=True)
class Labels:
    """label [U] (number, 0 = none), iou [U]; best [U, K] number and best_iou [U, K] of each category judged alone."""

    label: np.ndarray
    iou: np.ndarray
    best: np.ndarray
    best_iou: np.ndarray

    def detectors(self, cut: float) -> np.ndarray:
        """bool [U]: units whose best IoU passes the cut, strictly."""
        return self.iou > cut

    def unique_detectors(self, cut: float) -> int:
        """Sum over categories of the distinct labels over the cut when each category is judged alone."""
        return sum(len(np.unique(self.best[self.best_iou[:, k] > cut, k])) for k in range(self.best.shape[1]))

    def unique_concepts(self, cut: float) -> int:
        """Distinct labels among the detectors."""
        return len(np.unique(self.label[self.detectors(cut)]))


@dataclass(frozen=True)
class ScoreTable:
    """Columns of equal length, ordered by unit, then rank: the best concepts of each unit and the best units of each
    concept, pairs that meet somewhere only. rank and concept_rank start at 1. iou_low, iou_high: 95 % interval; phi and
    iqr as in `measures`, ap as in `peaks`; NaN where there is none, None before they are known."""

    unit: np.ndarray
    concept: np.ndarray
    rank: np.ndarray
    concept_rank: np.ndarray
    intersection: np.ndarray
    unit_area: np.ndarray
    concept_area: np.ndarray
    iou: np.ndarray
    iou_low: np.ndarray | None = None
    iou_high: np.ndarray | None = None
    phi: np.ndarray | None = None
    iqr: np.ndarray | None = None
    ap: np.ndarray | None = None


def _unit_blocks(units: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, width))
    for first in range(0, units, step):
        yield slice(first, min(units, first + step))


def label_units(counts: Counts) -> Labels:
    """Best concept of each unit. Ties: lowest number inside a category, higher category index across categories."""
    units, categories = counts.area.shape
    best = np.zeros((units, categories), dtype=np.int64)
    best_iou = np.zeros((units, categories))
    for k in range(categories):
        numbers = np.flatnonzero(counts.primary == k)
        if not len(numbers):
            continue
        for block in _unit_blocks(units, len(numbers)):
            scores = counts.iou(block, numbers)
            first = scores.argmax(axis=1)
            top = scores[np.arange(len(first)), first]
            best[block, k] = np.where(top > 0, numbers[first], 0)
            best_iou[block, k] = top
    if not categories:
        return Labels(np.zeros(units, np.int64), np.zeros(units), best, best_iou)
    last = categories - 1 - best_iou[:, ::-1].argmax(axis=1)
    rows = np.arange(units)
    return Labels(best[rows, last], best_iou[rows, last], best, best_iou)


def score_table(counts: Counts, best_concepts: int = BEST_CONCEPTS, best_units: int = BEST_UNITS) -> ScoreTable:
    """The pairs worth a row in the database, with both ranks among all pairs that meet."""
    units, numbers = counts.area.shape[0], counts.concepts
    wanted = np.zeros((units, len(numbers)), dtype=bool)
    concept_step = max(1, _BLOCK // max(1, units))
    for first in range(0, len(numbers), concept_step):
        scores = counts.iou(slice(0, units), numbers[first : first + concept_step])
        order = np.argsort(-scores, axis=0, kind="stable")[:best_units]  # ties to the lower unit
        chosen = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(chosen, order, True, axis=0)
        wanted[:, first : first + concept_step] = chosen & (scores > 0)
    category = counts.primary[numbers]
    found: list[tuple[np.ndarray, ...]] = [(np.zeros(0, np.int64),) * 3]
    for block in _unit_blocks(units, len(numbers)):
        scores = counts.iou(block, numbers)
        order = np.lexsort(
            (np.broadcast_to(numbers, scores.shape), np.broadcast_to(-category, scores.shape), -scores), axis=1
        )
        ranks = np.empty(scores.shape, dtype=np.int32)
        np.put_along_axis(ranks, order, np.arange(1, len(numbers) + 1, dtype=np.int32)[None], axis=1)
        at = (wanted[block] | (ranks <= best_concepts) & (scores > 0)).nonzero()
        found.append((at[0] + block.start, at[1], ranks[at].astype(np.int64)))
    rows, columns, rank = (np.concatenate(parts) for parts in zip(*found))
    concept_rank = np.empty(len(rows), dtype=np.int64)
    pairs_by_column = np.argsort(columns, kind="stable")
    edges = np.searchsorted(columns[pairs_by_column], np.arange(len(numbers) + 1))
    for c in range(len(numbers)):
        mine = pairs_by_column[edges[c] : edges[c + 1]]
        if len(mine):
            order = np.argsort(-counts.iou(slice(0, units), numbers[c : c + 1])[:, 0], kind="stable")
            place = np.empty(units, dtype=np.int64)
            place[order] = np.arange(1, units + 1)
            concept_rank[mine] = place[rows[mine]]
    order = np.lexsort((rank, rows))
    rows, columns, rank, concept_rank = rows[order], columns[order], rank[order], concept_rank[order]
    concept = numbers[columns]
    meeting = counts.intersection[rows, concept]
    unit_area = counts.area[rows, counts.primary[concept]]
    concept_area = counts.concept_area[concept]
    return ScoreTable(
        rows, concept, rank, concept_rank, meeting, unit_area, concept_area, iou(meeting, unit_area, concept_area)
    )
