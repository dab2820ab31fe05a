"""Can a measure tell labels from spoilt labels? Two published checks (Oikarinen, Yan & Weng, ICML 2025).

Missing labels: half of a concept's pixels (images, for average precision), drawn at random, lose their label. Extra
labels: as many others as there are get it. Either way the labels say less of what the unit does, and a measure that one
may trust must fall. Precision does not for extra labels, recall does not for missing ones: they explain an IoU and
never stand in its place. Where labels fit no better than chance there is nothing to lose: the checks are for detectors.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dissect import measures, scores
from dissect.errors import SpecError
from dissect.peaks import average_precision
from dissect.store import RunRecord, Store

ENOUGH = 0.95
"""Share of pairs whose score must fall for a check to be passed."""

Cells = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Intersection, unit area, concept area and pixels of P pairs."""

_MEASURES: dict[str, Callable[[Cells], np.ndarray]] = {
    "iou": lambda c: scores.iou(*c[:3]),
    "f1": lambda c: measures.f1(*c[:3]),
    "phi": lambda c: measures.phi(*c),
    "iqr": lambda c: measures.iqr(*c),
    "precision": lambda c: measures.precision(c[0], c[1]),
    "recall": lambda c: measures.recall(c[0], c[2]),
}


@dataclass(frozen=True)
class Verdict:
    """missing, extra: share of the pairs whose score falls."""

    measure: str
    pairs: int
    missing: float
    extra: float

    @property
    def passes(self) -> bool:
        return min(self.missing, self.extra) >= ENOUGH


def check_counts(cells: Cells, seed: int = 0) -> list[Verdict]:
    """Both checks on the measures that come from counts, for pairs that meet: which pixels lose or get the label is
    drawn, so the counts that follow are hypergeometric."""
    meeting, area, size, pixels = cells
    rng = np.random.Generator(np.random.PCG64(seed))
    kept = size - size // 2
    missing = _drawn(rng, meeting, size - meeting, kept), area, kept, pixels
    free = np.minimum(size, pixels - size)
    extra = meeting + _drawn(rng, area - meeting, pixels - size - (area - meeting), free), area, size + free, pixels
    found = []
    for name, measure in _MEASURES.items():
        before, *after = (np.nan_to_num(measure(c)) for c in (cells, missing, extra))
        found.append(Verdict(name, len(meeting), *(float((a < before).mean()) for a in after)))
    return found


def check_ranking(images: int = 5000, units: int = 200, seed: int = 0) -> Verdict:
    """Both checks on average precision, for planted units whose peaks are larger by 1.5 to 3 standard deviations where
    an image holds the concept, which one in fifty does."""
    rng = np.random.Generator(np.random.PCG64(seed))
    chosen = rng.permutation(images)
    holding = images // 50
    peaks = rng.normal(size=(images, units))
    peaks[chosen[:holding]] += np.linspace(1.5, 3, units)
    before, missing, extra = (
        _ranked(peaks, np.isin(np.arange(images), chosen[:count])) for count in (holding, holding // 2, 2 * holding)
    )
    return Verdict("ap", units, float((missing < before).mean()), float((extra < before).mean()))


def planted(pairs: int = 1000, seed: int = 0) -> Cells:
    """Detectors, IoU 0.04 to 0.5, of masks and concepts that cover 0.2 % to 5 % of the pixels: for where there is no
    run to ask."""
    rng = np.random.Generator(np.random.PCG64(seed))
    pixels = np.full(pairs, 10_000_000)
    area = (pixels * 10 ** rng.uniform(-2.7, -1.3, pairs)).astype(np.int64)
    size = (area * 10 ** rng.uniform(-0.5, 0.5, pairs)).astype(np.int64)
    iou = np.minimum(rng.uniform(0.04, 0.5, pairs), 0.9 * np.minimum(area, size) / np.maximum(area, size))
    return (iou * (area + size) / (1 + iou)).astype(np.int64), area, size, pixels


def cells_of(store: Store, run: RunRecord) -> Cells:
    """The detectors of a run. Raises SpecError where it has none, or its counts are no table of pixels."""
    pixels = {category.index: category.pixels for category in store.categories(run.id)}
    if None in pixels.values():
        raise SpecError(f"run {run.title!r} does not tell over which pixels areas count ({run.convention} convention)")
    category = {concept.number: concept.category for concept in store.concepts(run.id)}
    parts = []
    for layer in store.layers(run.id):
        pairs = store.scores(layer)
        mine = (pairs.rank == 1) & (pairs.iou > layer.cut)
        total = np.array([pixels[category[number]] for number in pairs.concept[mine].tolist()], np.int64)
        parts.append((pairs.intersection[mine], pairs.unit_area[mine], pairs.concept_area[mine], total))
    meeting, area, size, total = (np.concatenate(column) for column in zip(*parts))
    if not len(meeting):
        raise SpecError(f"run {run.title!r} has no detectors to check measures on")
    return meeting, area, size, total


def _drawn(rng: np.random.Generator, good: np.ndarray, bad: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Good ones among `count` drawn without replacement, by the normal law where there are many (the counts of a run
    exceed what NumPy draws exactly)."""
    total = np.maximum(good + bad, 1)
    share = good / total
    spread = np.sqrt(np.maximum(count * share * (1 - share) * (1 - count / total), 0))
    drawn = np.rint(count * share + spread * rng.normal(size=len(good))).astype(np.int64)
    found: np.ndarray = np.clip(drawn, np.maximum(count - bad, 0), np.minimum(good, count))
    return found


def _ranked(peaks: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision [U] of images with a label among all; every image holds something of the category."""
    holding = [np.array([1, 2] if one else [2], np.int32) for one in labels]
    unit = np.arange(peaks.shape[1])
    table = np.array([-1, 0, 0])
    return average_precision(peaks.astype(np.float32), holding, table, unit, np.ones(len(unit), np.int64))
