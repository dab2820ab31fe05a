"""How often a unit keeps its label when the images are drawn anew: a bootstrap over blocks of images."""

import numpy as np

DRAWS = 200
_AT_ONCE = 1 << 24  # values of one array at a time


def stability(
    unit: np.ndarray, rank: np.ndarray, intersection: np.ndarray, union: np.ndarray, units: int
) -> np.ndarray:
    """Share [U] of bootstrap draws in which the concept of rank 1 is still the best of those stored for the unit.

    unit, rank [P], sorted by unit, then rank; intersection, union [B, P] by block. A draw takes B blocks with
    replacement, the same for all units; the seed is fixed, so equal counts give equal shares. Ties keep the label.
    NaN for units without a label.
    """
    blocks = len(union)
    draws = np.random.Generator(np.random.PCG64(0)).multinomial(blocks, np.full(blocks, 1 / blocks), DRAWS)
    found = np.full(units, np.nan)
    first = np.flatnonzero(rank == 1)
    step = max(1, _AT_ONCE // max(1, DRAWS * _longest(unit)))
    edges = np.searchsorted(unit, unit[first]), np.searchsorted(unit, unit[first], side="right")
    for begin in range(0, len(first), step):
        chosen = slice(edges[0][begin], edges[1][min(begin + step, len(first)) - 1])
        meeting, whole = (draws @ counts[:, chosen].astype(np.float64) for counts in (intersection, union))
        iou = np.divide(meeting, whole, out=np.zeros_like(meeting), where=whole > 0)
        for i in range(begin, min(begin + step, len(first))):
            mine = iou[:, edges[0][i] - chosen.start : edges[1][i] - chosen.start]
            found[unit[first[i]]] = (mine[:, 0] >= mine.max(1)).mean()
    return found


def _longest(unit: np.ndarray) -> int:
    return int(np.unique(unit, return_counts=True)[1].max()) if len(unit) else 1
