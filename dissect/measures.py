"""Measures beside IoU, from the same counts: the two-by-two table of a unit's mask and a concept.

intersection I, unit_area A and concept_area G broadcast; pixels N is what A was counted over, the images that hold the
concept's category. All return float64, 0 where nothing meets, NaN where the table does not define them.
"""

import numpy as np

NAMES = ("precision", "recall", "f1", "phi", "iqr")


def precision(intersection: np.ndarray, unit_area: np.ndarray) -> np.ndarray:
    """I / A: how much of the mask is the concept."""
    return _ratio(intersection, unit_area)


def recall(intersection: np.ndarray, concept_area: np.ndarray) -> np.ndarray:
    """I / G: how much of the concept is in the mask."""
    return _ratio(intersection, concept_area)


def f1(intersection: np.ndarray, unit_area: np.ndarray, concept_area: np.ndarray) -> np.ndarray:
    """2 I / (A + G), which is 2 IoU / (1 + IoU): orders pairs as IoU does."""
    return _ratio(2 * np.asarray(intersection), np.asarray(unit_area) + concept_area)


def phi(intersection: np.ndarray, unit_area: np.ndarray, concept_area: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Correlation of mask and concept over pixels, -1..1 (Matthews correlation coefficient)."""
    n = np.asarray(pixels, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        a, g = unit_area / n, concept_area / n
        found: np.ndarray = (intersection / n - a * g) / np.sqrt(a * (1 - a) * g * (1 - g))
    return np.where(np.isfinite(found), found, np.nan)


def iqr(intersection: np.ndarray, unit_area: np.ndarray, concept_area: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Information quality ratio, 0..1: mutual information of mask and concept over their joint entropy (Wijaya et al.,
    2017; the measure by which GAN dissection chose its thresholds)."""
    n = np.asarray(pixels, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit, concept = (unit_area, pixels - unit_area), (concept_area, pixels - concept_area)
        only_unit, only_concept = unit_area - intersection, concept_area - intersection
        neither = pixels - unit_area - only_concept  # of integers: an empty cell stays empty
        cells = (
            (intersection, unit[0], concept[0]), (only_unit, unit[0], concept[1]),
            (only_concept, unit[1], concept[0]), (neither, unit[1], concept[1]),
        )  # fmt: skip
        mutual = sum(_term(p / n, (x / n) * (y / n)) for p, x, y in cells)
        joint = -sum(_term(p / n, 1.0) for p, _, _ in cells)
        found: np.ndarray = np.clip(mutual / joint, 0, 1)
    return np.where(np.isfinite(found), found, np.nan)


def _term(p: np.ndarray, expected: np.ndarray | float) -> np.ndarray:
    """p log(p / expected), 0 where p is."""
    return np.where(p > 0, p * np.log(np.where(p > 0, p / expected, 1.0)), 0.0)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
