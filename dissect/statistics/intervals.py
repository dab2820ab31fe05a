"""A 95 % interval for each reported IoU, from counts by block of images.

Blocks are groups of images that take turns along the data set (`scan.BLOCKS`), so leaving one out is leaving out an
image in so many. The interval is the delete-one-block jackknife of the ratio IoU = I / (A + G - I) (Wolter,
Introduction to Variance Estimation, 2007, chapter 4) on the logit scale with Student's t: it stays inside 0..1 and
follows the skew of small values. It tells how the IoU of this pair, under this threshold, would vary over sets of
images like this one; that the label was chosen as the best of many is not in it (see `stability`).
"""

import math

import numpy as np

FEWEST = 8
"""Blocks that must hold the concept, or the unit's mask in its images: with fewer, there is no interval."""
_NORMAL = 1.959963984540054  # quantile of the normal distribution at 0.975


def intervals(intersection: np.ndarray, union: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [P] float64 of the IoU of P pairs; intersection and union [B, P] by block.

    NaN where there is no honest interval: fewer than FEWEST blocks with a union, no intersection at all, or an IoU that
    is the same in every block.
    """
    meeting, whole = intersection.sum(0), union.sum(0)
    blocks = len(union)
    filled = (union > 0).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = _logit((meeting - intersection) / (whole - union))
        spread = without - without.mean(0)
        error = np.sqrt((blocks - 1) / blocks * (spread * spread).sum(0))
        center = _logit(meeting / whole)
        reach = student(blocks - 1) * error
        low, high = _expit(center - reach), _expit(center + reach)
    bad = (filled < FEWEST) | ~np.isfinite(reach) | ~(reach > 1e-9)
    return np.where(bad, np.nan, low), np.where(bad, np.nan, high)


def student(freedom: int) -> float:
    """Quantile of Student's t at 0.975 by its expansion in 1 / freedom (Abramowitz & Stegun 26.7.5): right to four
    digits from 7 degrees of freedom on."""
    z, n = _NORMAL, freedom
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / n**power for power, term in enumerate(terms, 1))


def _logit(share: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.log(share) - np.log1p(-share)
    return found


def _expit(value: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.minimum(value, math.log(np.finfo(np.float64).max)).clip(-700)))
