"""What a run will need, worked out before it starts: memory, passes over the images, and what is kept where.

A layer whose tails do not fit into the memory budget is cut into ranges of units, which are done one pass after
another: slower, but exact and bounded.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dissect.conventions import Convention
from dissect.errors import SpaceError
from dissect.progress import size
from dissect.scan import BLOCKS, LayerScan
from dissect.thresholds import tail_length

LABEL_SHARE, SCAN_SHARE = 8, 2  # one part in 8 of the budget caches labels, at most half holds tails


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
    """Passes over the images, each a tuple of parts, and the byte budgets of what is kept meanwhile."""

    passes: tuple[tuple[Part, ...], ...]
    scan_bytes: int
    candidate_bytes: int
    label_bytes: int

    def sentence(self) -> str:
        """One line for people."""
        count = len(self.passes)
        return (
            f"{count} pass{'es' if count > 1 else ''} over the images; memory: tails {size(self.scan_bytes)}, "
            f"candidates up to {size(self.candidate_bytes)}, labels up to {size(self.label_bytes)}"
        )


def make_plan(
    shapes: Mapping[str, tuple[int, int, int]],
    label_size: tuple[int, int],
    images: int,
    convention: Convention,
    quantile: float,
    exemplars: int,
    memory: int,
) -> Plan:
    """shapes: {layer: (h, w, U)}. Raises SpaceError where a single unit does not fit into the budget."""
    room = memory // SCAN_SHARE
    passes: list[list[Part]] = [[]]
    used, peak = 0, 0
    for layer, (height, width, units) in shapes.items():
        places = convention.places((height, width), label_size)
        keep = tail_length(convention, quantile, images * places)
        each = LayerScan.bytes_needed(1, keep, exemplars, BLOCKS, places)
        if each > room:
            raise SpaceError(
                f"layer {layer!r} needs {size(each)} for the tail of one unit "
                f"({height} x {width} maps of {images:,} images), "
                f"more than half of --memory {size(memory)}: raise it to {size(2 * each)}"
            )
        first = 0
        while first < units:
            count = min(units - first, (room - used) // each)
            if count == 0:
                passes.append([])
                used = 0
                continue
            passes[-1].append(Part(layer, first, first + count, height, width, places, keep))
            used += count * each
            peak = max(peak, used)
            first += count
    labels = memory // LABEL_SHARE
    return Plan(tuple(tuple(parts) for parts in passes), peak, memory - labels - peak, labels)
