"""Which images contain a concept, and how much of them it covers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from broden.dataset import Dataset
from broden.describing import opened, spans
from broden.errors import DataError, InputFault
from broden.parallel import cores, ordered
from broden.progress import OnProgress
from broden.schema import ImageLabels, Label, Row


class Match(NamedTuple):
    """An image that holds all concepts asked for. `coverage` 0..1 is that of the least covering one."""

    position: int
    image: str
    split: str
    coverage: float
    coverages: tuple[float, ...]


def lookup(data: Dataset, names: Sequence[str]) -> list[Label]:
    """Labels by name, number or synonym. Raises DataError with the nearest names."""
    import difflib

    found = []
    for name in names:
        label = data.labels.find(name)
        if label is None:
            known = [label.name for label in data.labels.present()]
            near = difflib.get_close_matches(name, known, 3, 0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; the set has {len(known)} concepts, see `stats`"
            raise DataError("label.csv", None, f"no concept {name!r}{hint}")
        found.append(label)
    return found


def mask_of(row: Row, labels: ImageLabels, number: int, category: int | None) -> NDArray[np.bool_]:
    """Pixels of a label, bool [H, W]: planes united, a whole-image label everywhere; of one category if given."""
    shape = labels.planes.shape[1:]
    if any(s.number == number and category in (None, s.category) for s in row.scalars):
        return np.ones(shape, np.bool_)
    mask = np.zeros(shape, np.bool_)
    for plane, (at, _) in zip(labels.planes, row.planes, strict=True):
        if category in (None, at):
            mask |= plane == number
    return mask


def match_chunk(
    shared: tuple[tuple[str, str | None, int | None], tuple[int, ...], int | None, float], span: tuple[int, int]
) -> tuple[list[Match], list[tuple[str, str]]]:
    """Matches and faults among positions span[0] .. span[1] - 1."""
    where, numbers, category, least = shared
    data = opened(where)
    found: list[Match] = []
    faults: list[tuple[str, str]] = []
    for position in range(*span):
        row = data.rows[position]
        if not row.planes and not row.scalars:
            continue
        try:
            labels = data.read_labels(position)
        except InputFault as fault:
            faults.append((fault.file, fault.reason))
            continue
        shares = tuple(float(mask_of(row, labels, number, category).mean()) for number in numbers)
        if min(shares) > 0 and min(shares) >= least:
            found.append(Match(position, row.image, row.split, min(shares), shares))
    return found, faults


def find_images(
    data: Dataset,
    labels: Sequence[Label],
    category: str | None = None,
    min_coverage: float = 0.0,
    workers: int | None = None,
    progress: OnProgress | None = None,
) -> tuple[list[Match], list[tuple[str, str]]]:
    """Images that hold every one of `labels` with at least `min_coverage`, most covered first; and broken files.

    `category` counts only what stands under that category. Raises DataError for an unknown category.
    """
    index = next((c.index for c in data.categories if c.name == category), None)
    if category is not None and index is None:
        names = ", ".join(c.name for c in data.categories)
        raise DataError("category.csv", None, f"no category {category!r}; the set has {names}")
    where = (str(data.root), data.split, data.limit)
    shared = (where, tuple(label.number for label in labels), index, min_coverage)
    pieces = spans(len(data))
    matches: list[Match] = []
    faults: list[tuple[str, str]] = []
    results = ordered(__name__, "match_chunk", shared, pieces, 1 if len(pieces) < 8 else workers or cores())
    for (_, stop), (found, bad) in zip(pieces, results, strict=True):
        matches += found
        faults += bad
        if progress:
            progress("searching", stop, len(data))
    return sorted(matches, key=lambda match: (-match.coverage, match.position)), faults
