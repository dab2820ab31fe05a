"""What a run will need, worked out before it starts: memory, passes over the images, and what is kept where.

A layer whose tails do not fit into the memory budget is cut into ranges of units, which are done one pass after
another: slower, but exact and bounded.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dissect.candidates import FULL
from dissect.chunk import Layout
from dissect.conventions import Convention
from dissect.errors import SpaceError
from dissect.histogram import BINS
from dissect.overlap import OverlapCounts
from dissect.peaks import bytes_of, stride
from dissect.progress import size
from dissect.scan import BLOCKS, LayerScan
from dissect.thresholds import tail_length

LABEL_SHARE, HALF = 8, 2  # one part in 8 of the budget caches labels, at most half holds tails, later counts
PEAK_SHARE = 10
HISTOGRAM_SHARE = 16
RESERVE_SHARE, RESERVE = 6, 224 << 20  # bytes, at most: buffers of decoding and of kernels, what an allocator rounds up
BATCH_SHARE, LATER_SHARE = 3, 8  # at most for a first batch, all of whose nodes are candidates; with the labels there
BATCH_COPIES = 3.25  # of those nodes while they are gathered: what threads collect, in vectors that double, and a room
FEWEST_BLOCKS = 8  # an interval from fewer groups of images would say little


@dataclass(frozen=True)
class Part:
    """Units first..last of one layer, worked on in one pass. height, width: map size; places: values of a unit in one
    image that the quantile runs over; keep: tail length."""

    layer: str
    first: int
    last: int
    height: int
    width: int
    places: int
    keep: int

    @property
    def units(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Plan:
    """Passes over the images, each a tuple of parts, and the byte budgets of what is kept meanwhile. blocks: groups of
    images that are counted apart (1: no intervals); bins: of the activation histograms (0: none); every: the images
    whose peaks are kept, every so-many-th."""

    passes: tuple[tuple[Part, ...], ...]
    scan_bytes: int
    count_bytes: int
    candidate_bytes: int
    label_bytes: int
    blocks: int
    bins: int
    peak_bytes: int
    every: int

    @property
    def cut(self) -> dict[str, Any]:
        """How the work is cut, and what is kept of it, as plain JSON values: what was saved under another cut (another
        memory budget) is of no use."""
        passes = [[[part.layer, part.first, part.last, part.keep] for part in parts] for parts in self.passes]
        return {"passes": passes, "kept": [self.bins, self.every]}

    def sentence(self) -> str:
        """One line for people."""
        count = len(self.passes)
        return (
            f"{count} pass{'es' if count > 1 else ''} over the images; memory: tails {size(self.scan_bytes)}, then "
            f"counts {size(self.count_bytes)} in {self.blocks} block{'s' if self.blocks > 1 else ''}, candidates up to "
            f"{size(self.candidate_bytes)}, labels up to {size(self.label_bytes)}, peaks {size(self.peak_bytes)}"
        )


def make_plan(
    shapes: Mapping[str, tuple[int, int, int]],
    label_size: tuple[int, int],
    images: int,
    vocabulary: tuple[int, int],
    convention: Convention,
    quantile: float,
    exemplars: int,
    batch: int,
    memory: int,
) -> Plan:
    """shapes: {layer: (h, w, U)}; vocabulary: (largest label number + 1, categories); batch: images of one.

    Raises SpaceError where a single unit does not fit into the budget.
    """
    room = memory // HALF
    bins = BINS if 4 * BINS * sum(shape[2] for shape in shapes.values()) <= memory // HISTOGRAM_SHARE else 0
    counts = OverlapCounts.bytes_needed(1, *vocabulary)
    passes: list[list[Part]] = [[]]
    used = gathered = 0
    needs: dict[str, _Need] = {}
    for layer, (height, width, units) in shapes.items():
        places, nodes = convention.places((height, width), label_size), math.prod(convention.nodes((height, width)))
        keep = tail_length(convention, quantile, images * places)
        layout = Layout.of(units, batch, nodes)
        needs[layer] = need = _Need(
            LayerScan.tail_bytes(keep, places),
            LayerScan.other_bytes(exemplars, BLOCKS, bins) + 4 * exemplars * height * width,
            layout.expected(keep, nodes),
            int(batch * nodes * (4 + BATCH_COPIES * (4 + layout.place))),
        )
        each = max(need.tail, counts) + need.rest
        if each > room:
            raise SpaceError(
                f"layer {layer!r} needs {size(each)} for one unit "
                f"({height} x {width} maps of {images:,} images), "
                f"more than half of --memory {size(memory)}: raise it to {size(2 * each)}"
            )
        first = 0
        while first < units:
            most = memory // (LATER_SHARE if len(passes) > 1 else BATCH_SHARE)
            count = min(units - first, (room - used) // each, (most - gathered) // need.batch)
            if count <= 0 and passes[-1]:
                passes.append([])
                used = gathered = 0
                continue
            count = max(1, count)
            passes[-1].append(Part(layer, first, first + count, height, width, places, keep))
            used += count * each
            gathered += count * need.batch
            first += count
    totals = [_total(parts, needs) for parts in passes]
    total = sum(shape[2] for shape in shapes.values())
    every = stride(images, total, memory // PEAK_SHARE)
    peaks, labels = bytes_of(images, total, every), memory // LABEL_SHARE
    # While the first batches of all are gathered there are few labels yet; passes that follow find them there,
    # and what the first left in the heap.
    buffers = min(memory // RESERVE_SHARE, RESERVE)
    reserve = max(buffers, totals[0][0].batch - labels, *(buffers + need.batch for need, _ in totals[1:]))
    blocks = 1
    if len(passes) == 1:
        ((need, units),) = totals
        # Candidates wait beside the counts: more groups of images are not worth a way over the disk.
        beside = memory - labels - peaks - reserve - need.rest - need.candidates * FULL[1] // FULL[0]
        blocks = _blocks((room - need.rest) // (counts * units), beside // (counts * units))
    measuring = max(need.tail + need.rest for need, _ in totals)
    counting = max(blocks * counts * units + need.rest for need, units in totals)
    spare = memory - labels - peaks - reserve - max(measuring, counting)
    return Plan(tuple(tuple(parts) for parts in passes), measuring, counting, spare, labels, blocks, bins, peaks, every)


@dataclass(frozen=True)
class _Need:
    """Bytes: of tails, which end with the pass over the images; of all else that is kept by unit, counts apart; of
    candidates, as far as can be foretold; and of a batch that is gathered whole."""

    tail: int
    rest: int
    candidates: int
    batch: int


def _total(parts: Sequence[Part], needs: Mapping[str, _Need]) -> tuple[_Need, int]:
    """What the parts of a pass need together, and their units."""
    each = [(part.units, needs[part.layer]) for part in parts]
    return _Need(
        sum(units * need.tail for units, need in each),
        sum(units * need.rest for units, need in each),
        sum(units * need.candidates for units, need in each),
        sum(units * need.batch for units, need in each),
    ), sum(units for units, _ in each)


def _blocks(affordable: int, wanted: int) -> int:
    """The largest divisor of BLOCKS that is wanted, or FEWEST_BLOCKS, if that is affordable; else 1: fewer than these
    are not worth it."""
    blocks = BLOCKS
    while blocks > min(affordable, max(wanted, FEWEST_BLOCKS)):
        blocks //= 2
    return blocks if blocks >= FEWEST_BLOCKS else 1
