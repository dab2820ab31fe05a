"""What a set holds, in figures: for `info` and `stats`."""

from __future__ import annotations

import PIL
from PIL import features

from broden.counting import Counts
from broden.dataset import Dataset
from broden.errors import InputFault
from broden.parallel import cores, ordered
from broden.progress import OnProgress

CHUNK = 128


def decoders() -> dict[str, str]:
    """Versions that decide pixels: they belong to the provenance of every result."""
    versions = {"pillow": PIL.__version__}
    for feature in ("jpg", "libjpeg_turbo", "zlib", "zlib_ng", "webp"):
        version = features.version(feature)
        if version is not None:
            versions[feature] = version
    return versions


def most_frequent(data: Dataset, category: str, count: int = 5) -> list[str]:
    """Names of the concepts that most images hold under a category."""
    labels = [label for label in data.labels.present() if category in label.categories]
    return [label.name for label in sorted(labels, key=lambda label: (-label.categories[category], label.number))][
        :count
    ]


def info(data: Dataset) -> dict[str, object]:
    """Counts by category, split and source, sizes, fingerprint: plain values, fit for JSON."""
    splits: dict[str, int] = {}
    sources: dict[str, int] = {}
    for row in data.rows:
        splits[row.split] = splits.get(row.split, 0) + 1
        source = row.image.split("/")[0] if "/" in row.image else "."
        sources[source] = sources.get(source, 0) + 1
    labels = data.labels.present()
    return {
        "name": data.name,
        "storage": type(data).__name__.removesuffix("Dataset").lower(),
        "images": len(data),
        "unlabelled": sum(not row.planes and not row.scalars for row in data.rows),
        "image_size": list(data.image_size),
        "label_size": list(data.label_size),
        "planes": sum(len(row.planes) for row in data.rows),
        "scalars": sum(len(row.scalars) for row in data.rows),
        "labels": len(labels),
        "splits": dict(sorted(splits.items())),
        "sources": dict(sorted(sources.items())),
        "categories": [
            {
                "index": category.index,
                "name": category.name,
                "labels": category.count,
                "primary": sum(label.primary == category.name for label in labels),
                "frequency": category.frequency,
                "most": most_frequent(data, category.name),
            }
            for category in data.categories
        ],
        "fingerprint": data.fingerprint,
        "decoders": decoders(),
    }


STAT_COLUMNS = ("number", "name", "category", "primary", "frequency", "coverage", "label_frequency", "synonyms")
RECOUNT_COLUMNS = ("images", "pixels")


def stats(data: Dataset, counts: Counts | None = None) -> list[dict[str, object]]:
    """One row for each concept in each of its categories; with `counts` also images and label pixels as counted."""
    rows: list[dict[str, object]] = []
    for label in data.labels.present():
        for category in data.categories:
            if category.name not in label.categories:
                continue
            row: dict[str, object] = {
                "number": label.number,
                "name": label.name,
                "category": category.name,
                "primary": label.primary == category.name,
                "frequency": label.categories[category.name],
                "coverage": label.coverage,
                "label_frequency": label.frequency,
                "synonyms": ";".join(label.synonyms),
            }
            if counts is not None:
                row["images"] = int(counts.images[category.index, label.number])
                row["pixels"] = int(counts.pixels[category.index, label.number])
            rows.append(row)
    return rows


def count_chunk(shared: tuple[str, str | None, int | None], span: tuple[int, int]) -> tuple[Counts, int]:
    """Counts over positions span[0] .. span[1] - 1, and how many images had a broken plane."""
    data = opened(shared)
    counts = Counts.empty(len(data.categories), len(data.labels))
    faults = 0
    for position in range(*span):
        try:
            labels = data.read_labels(position)
        except InputFault:
            faults += 1
            continue
        counts.update(data.rows[position], labels)
    return counts, faults


_opened: dict[tuple[str, str | None, int | None], Dataset] = {}


def opened(shared: tuple[str, str | None, int | None]) -> Dataset:
    """The set (path, split, limit) of a worker process, opened once."""
    from broden.dataset import open as open_set

    if shared not in _opened:
        _opened.clear()
        _opened[shared] = open_set(*shared)
    return _opened[shared]


def spans(total: int, chunk: int = CHUNK) -> list[tuple[int, int]]:
    """Positions 0 .. total - 1 in pieces."""
    return [(first, min(first + chunk, total)) for first in range(0, total, chunk)]


def recount(data: Dataset, workers: int | None = None, progress: OnProgress | None = None) -> tuple[Counts, int]:
    """Counts of all images in use, read from the planes; and how many images had to be left out."""
    counts = Counts.empty(len(data.categories), len(data.labels))
    faults = 0
    pieces = spans(len(data))
    few = len(pieces) < 8
    shared = (str(data.root), data.split, data.limit)
    results = ordered(__name__, "count_chunk", shared, pieces, 1 if few else workers or cores())
    for (_, stop), (part, bad) in zip(pieces, results, strict=True):
        counts.merge([part])
        faults += bad
        if progress:
            progress("counting", stop, len(data))
    _opened.clear()
    return counts, faults
