"""A Broden-format set with planted truth in all six categories, at any size.

The pictures show simple scenes, things made of parts, textures and patches of material; labels are what was
painted, colours are named from the painted pixels by the rule of `broden.colours`. The same arguments give the
same bytes, whatever the number of processes. `facts.csv` in the set tells each image's kind for training a
classifier on whole images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from broden.decode import encode_plane
from broden.errors import DataError
from broden.parallel import cores, ordered
from broden.paths import Root
from broden.progress import OnProgress
from broden.schema import CATEGORIES
from broden.synthetic import render
from broden.synthetic.plan import Facts, plan_image
from broden.synthetic.vocabulary import Vocabulary, make_vocabulary
from broden.tables import read_table, table_bytes
from broden.writing import (
    CHECKSUM_COLUMNS,
    CHECKSUMS,
    FACTS,
    IndexRow,
    Tally,
    assign,
    checksum,
    index_bytes,
    new_folder,
    plane_names,
)

if TYPE_CHECKING:
    from broden.dataset import Dataset

CHUNK = 64
PLANE_LEVEL = 4


@dataclass(frozen=True)
class _Job:
    """What every worker needs to know."""

    size: int
    seed: int
    concepts: int | None
    folder: str = ""
    number: dict[str, int] | None = None

    @property
    def label_size(self) -> int:
        return self.size // 2


_vocabularies: dict[int | None, Vocabulary] = {}


def _vocabulary(concepts: int | None) -> Vocabulary:
    if concepts not in _vocabularies:
        _vocabularies[concepts] = make_vocabulary(concepts)
    return _vocabularies[concepts]


def count_chunk(job: _Job, span: tuple[int, int]) -> Tally:
    """First pass over images span[0] .. span[1] - 1: what they show."""
    tally = Tally(job.label_size**2)
    words = _vocabulary(job.concepts)
    for index in range(*span):
        render.count(render.truth(plan_image(index, job.size, job.seed, words), words, job.label_size), tally)
    return tally


def write_chunk(job: _Job, span: tuple[int, int]) -> list[tuple[IndexRow, Facts, list[tuple[str, int, str]]]]:
    """Second pass: write pictures and planes; returns rows, facts and checksums."""
    assert job.number is not None
    words = _vocabulary(job.concepts)
    every = np.arange(job.size)
    images = Path(job.folder) / "images"
    done = []
    for index in range(*span):
        plan = plan_image(index, job.size, job.seed, words)
        labels = render.truth(plan, words, job.label_size)
        files = {plan.name: render.jpeg(render.pixels(plan, every))}
        cells: dict[str, str] = {}
        for category, planes in labels.planes.items():
            kept = [(names, plane) for names, plane in planes if render.shown(names, plane)]
            paths = plane_names(plan.name.removesuffix(".jpg"), category, len(kept))
            for path, (names, plane) in zip(paths, kept, strict=True):
                numbers = np.array([0 if name is None else job.number[name] for name in names], np.uint16)
                files[path] = encode_plane(numbers[plane], PLANE_LEVEL)
            cells[category] = ";".join(paths) if kept else ""
        for category, name in labels.scalars.items():
            cells[category] = str(job.number[name])
        for name, data in files.items():
            (images / name).write_bytes(data)
        sums = [checksum(f"images/{name}", data) for name, data in files.items()]
        done.append((IndexRow(plan.name, cells), plan.facts, sums))
    return done


class _Hidden(dict[str, int]):
    """Numbers by name; concepts that no image shows in this set have none and are written as 0."""

    def __missing__(self, name: str) -> int:
        return 0


def synth(
    out: str | os.PathLike[str],
    images: int = 1000,
    size: int = 224,
    seed: int = 0,
    concepts: int | None = None,
    workers: int | None = None,
    progress: OnProgress | None = None,
) -> Dataset:
    """Write a synthetic set of `images` images into the new folder `out` and open it.

    `size` is the side of the pictures in pixels (labels have size // 2); `concepts` the number of concept names,
    12..1,197 (default: the basic vocabulary; one that no image shows is left out of the tables); `workers` the
    processes (default: one a core from 400 images on). Raises ValueError, DataError (out is taken), SpaceFault.
    """
    from broden.dataset import open as open_set

    if not 1 <= images <= 10_000_000:
        raise ValueError(f"images is {images}; expected 1..10,000,000")
    if not 32 <= size <= 1024:
        raise ValueError(f"size is {size}; expected 32..1,024 pixels")
    _vocabulary(concepts)
    if workers is None:
        workers = cores() if images >= 400 else 1
    say = progress or (lambda phase, done, total: None)
    spans = [(first, min(first + CHUNK, images)) for first in range(0, images, CHUNK)]

    def run(name: str, phase: str, job: _Job) -> Iterator[Any]:
        say(phase, 0, images)
        for (_, stop), result in zip(spans, ordered(__name__, name, job, spans, workers), strict=True):
            yield result
            say(phase, stop, images)

    target = Path(out)
    with new_folder(target) as folder:
        job = _Job(size, seed, concepts)
        tally = Tally(job.label_size**2)
        for part in run("count_chunk", "counting", job):
            tally.merge(part)
        numbering = assign(tally, CATEGORIES)
        for source in ("scenes", "objects", "textures", "materials", "plain"):
            (folder / "images" / source).mkdir(parents=True)
        job = _Job(size, seed, concepts, str(folder), _Hidden(numbering.number))
        done = list(chain.from_iterable(run("write_chunk", "writing", job)))
        tables = dict(numbering.tables)
        rows = [row for row, _, _ in done]
        tables["index.csv"] = index_bytes(rows, numbering.categories, (size, size), (job.label_size, job.label_size))
        tables[FACTS] = table_bytes(("image", *Facts._fields), ((row.image, *facts) for row, facts, _ in done))
        sums = [item for _, _, items in done for item in items]
        sums += [checksum(name, data) for name, data in tables.items()]
        tables[CHECKSUMS] = table_bytes(CHECKSUM_COLUMNS, sums)
        for name, data in tables.items():
            (folder / name).write_bytes(data)
    return open_set(target)


def facts(index: int, seed: int = 0, concepts: int | None = None) -> Facts:
    """What image number `index` shows, for training on whole images: object, texture, scene, colour."""
    return plan_image(index, 32, seed, _vocabulary(concepts)).facts


def read_facts(folder: str | os.PathLike[str]) -> dict[str, Facts]:
    """Facts of every image of a synthetic set, by image name. Raises DataError."""
    table = read_table(Root(folder), FACTS, ("image", *Facts._fields))
    found = {}
    for record in table:
        values = [record.text(name) for name in Facts._fields[1:]]
        found[record.text("image")] = Facts(record.integer("number", 0, 10_000_000), *values)
    if not found:
        raise DataError(FACTS, None, "no rows")
    return found
