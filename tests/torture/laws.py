"""Laws that hold whatever is drawn: tails are a sort, counts the plain definition, merges forget their order."""

import random
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dissect import ops, reference
from dissect.overlap import OverlapCounts
from dissect.scan import LayerScan
from tests.kernels import cases
from tests.torture.place import Tally

KINDS = ("normal", "relu", "coarse", "odd")
Part = TypeVar("Part", LayerScan, OverlapCounts)
EXACT = ("low", "high", "nonfinite", "histogram", "top_value", "top_image", "top_place")


def tails(folder: Path, count: int) -> Tally:
    """The largest values of a layer read in pieces, with ties, zeros of both signs and huge values, are those of a
    sort; NaN and infinities are counted."""
    tally = Tally()
    for number in range(count):
        chance = random.Random(number)
        shape = chance.randint(1, 5), chance.randint(1, 4), chance.randint(1, 5), chance.randint(1, 9)
        values = cases.maps(shape, number, chance.choice(KINDS))
        keep = chance.randint(1, shape[0] * shape[1] * shape[2])
        scan = LayerScan(shape[3], keep, 3, 1)
        for first in range(shape[0]):
            scan.update(values[first : first + 1], torch.tensor([True]), first, 0)
        flat = values.flatten(0, 1).numpy()
        plain = np.sort(np.where(np.isfinite(flat), flat, -np.inf), 0)[::-1][:keep].T
        clean = np.isfinite(flat).all(0)
        found = scan.ranked(range(keep)).numpy()
        tally.count(
            np.array_equal(found[clean], plain[clean])
            and np.array_equal(scan.nonfinite.numpy() > 0, ~clean)
            and bool((scan.bound.numpy()[clean] <= plain[clean][:, -1]).all())
        )
    return tally


def merges(folder: Path, count: int) -> Tally:
    """Scans of single images, merged in two random trees, are one scan of all; counts too."""
    tally = Tally()
    for number in range(count):
        chance = random.Random(number)
        shape = chance.randint(2, 6), chance.randint(1, 3), chance.randint(1, 4), chance.randint(1, 6)
        values = cases.maps(shape, number, chance.choice(KINDS))
        keep = chance.randint(1, 8)

        def scan(images: range, keep: int = keep, values: Tensor = values) -> LayerScan:
            made = LayerScan(values.shape[2], keep, 2, len(values), bins=2048)
            for i in images:
                made.update(values[i : i + 1], torch.tensor([True]), i, i)
            return made

        whole = scan(range(shape[0]))
        trees = [_tree([scan(range(i, i + 1)) for i in range(shape[0])], chance) for _ in range(2)]
        for one in (whole, *trees):
            one.sort()
        counts = [OverlapCounts(3, 5, 2) for _ in range(4)]
        for one in counts:
            for name in OverlapCounts.NAMES:
                array = getattr(one, name)
                array.copy_(torch.from_numpy(np.random.default_rng(number).integers(0, 2**40, array.shape)))
        total = torch.stack([one.intersection for one in counts]).sum(0)
        tally.count(
            all(_same(whole, tree) for tree in trees) and torch.equal(_tree(counts, chance).intersection, total)
        )
    return tally


def _tree(parts: list[Part], chance: random.Random) -> Part:
    while len(parts) > 1:
        chance.shuffle(parts)
        last = parts.pop()
        parts[chance.randrange(len(parts))].merge(last)
    return parts[0]


def _same(one: LayerScan, other: LayerScan) -> bool:
    clean = one.nonfinite == 0
    return (
        all(np.array_equal(getattr(one, name), getattr(other, name)) for name in EXACT)
        and torch.equal(one.tail[clean], other.tail[clean])
        and torch.equal(one.fill[clean], other.fill[clean])
        and np.array_equal(one.moments, other.moments, equal_nan=True)
    )


def counts(folder: Path, count: int) -> Tally:
    """Overlap counts of random maps and labels of any size are those of the plain definition."""
    tally = Tally()
    for number in range(count):
        chance = random.Random(number)
        images, height, width, units = (
            chance.randint(1, 3), chance.randint(1, 5), chance.randint(1, 5), chance.randint(1, 4)
        )  # fmt: skip
        size, label_size = (height, width), (chance.randint(1, 13), chance.randint(1, 13))
        values = cases.maps((images, height, width, units), number, chance.choice(KINDS[:3]))
        threshold = torch.tensor([chance.choice([-0.5, 0.0, 0.5, 1.0]) for _ in range(units)])
        chunk = cases.Chunk.gather(ops.gather, values, size, values.amax(1), threshold)
        labels, axis = cases.LabelCase.make(images, label_size, number), cases.tables(size, label_size)
        rule = chance.randint(0, 1)
        ours, plain = (
            cases.overlap(which, chunk, size, axis, threshold, labels, rule)
            for which in (ops.overlap, reference.overlap)
        )
        tally.count(all(torch.equal(a, b) for a, b in zip(ours, plain)))
    return tally
