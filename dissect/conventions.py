"""Published ways to turn activations and labels into IoU, as small declarative objects.

A run stores the name of its convention; numbers of different conventions are never compared. `exact` is the
definition of this project; the others restate what published implementations compute.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from torch import Tensor

from dissect import upsample
from dissect.errors import SpecError

IMAGE_HOLDS, MASK_TOUCHES, EVERY_IMAGE = 0, 1, 2  # area rules, see csrc/core/overlap.h


@dataclass(frozen=True)
class Convention:
    """How one implementation counts.

    readout: "order" takes the (k + 1)-th largest value, k = floor(q n); "percentile" interpolates linearly
    between order statistics at the level that a 1,000-point percentile table gives for q = 0.005 (994/999).
    values: over which activations the quantile runs, the raw map or the map upsampled to label size.
    anchor, border: where map nodes stand among label pixels, and what lies outside the outermost ones.
    area: in which images a unit's mask counts towards the area of a category.
    unite: a pixel belongs to a label once, whichever planes carry it (False: once for each plane).

    Label 0 never competes. In the files of the original it does, and surfaces as an empty texture label; that leak is
    read by the importer of published files and not reproduced in new runs.
    """

    name: str
    readout: Literal["order", "percentile"]
    values: Literal["map", "labels"]
    anchor: Literal["half_pixel", "field"]
    border: Literal["edge", "zero"]
    area: int
    unite: bool
    quantile: float
    cut: float
    source: str

    def rank(self, quantile: float, n: int) -> Fraction:
        """Position of the threshold among n values sorted descending, 0 = the largest."""
        q = Fraction(str(quantile))
        if self.readout == "order":
            return Fraction(int(q * n))
        # The table has 1,000 points; the read-out takes entry round(1000 q) of it, counted from the top.
        level = Fraction(round(1000 * q), 999)
        return level * (n - 1)

    def nodes(self, map_size: tuple[int, int]) -> tuple[int, int]:
        """Size of a map with the ring of zeros that a zero border puts around it."""
        height, width = map_size
        return (height + 2, width + 2) if self.pads else map_size

    def places(self, map_size: tuple[int, int], label_size: tuple[int, int]) -> int:
        """Activations of a unit in one image that the quantile runs over."""
        height, width = map_size if self.values == "map" else label_size
        return height * width

    def axes(
        self, map_size: tuple[int, int], label_size: tuple[int, int]
    ) -> tuple[upsample.AxisTable, upsample.AxisTable]:
        """Row and column tables for map_size; with a zero border the maps are one node wider on each side."""
        rows, columns = (self._axis(s, t) for s, t in zip(map_size, label_size))
        return rows, columns

    def _axis(self, sources: int, targets: int) -> upsample.AxisTable:
        if self.anchor == "field":
            # NetDissect's torch wrapper takes the stride s = input // map for the receptive field, with input twice
            # the label size, and integer division throughout: nodes stand at (s // 2) // 2 + i (s // 2).
            stride = 2 * targets // sources
            return upsample.anchored(sources, targets, first=stride // 2 // 2, step=max(1, stride // 2))
        if self.border == "zero":
            # One ring of zeros around the map: node -1 stands one step before node 0 of the half-pixel grid.
            step = targets / sources
            return upsample.anchored(sources + 2, targets, first=(step - 1) / 2 - step, step=step)
        return upsample.half_pixel(sources, targets)

    @property
    def counts_pixels(self) -> bool:
        """Whether mask and concept are counted over one and the same set of pixels, each once."""
        return self.unite and self.area != MASK_TOUCHES

    @property
    def pads(self) -> bool:
        """Whether maps get a ring of zeros before they are upsampled."""
        return self.border == "zero"


EXACT = Convention(
    "exact", "order", "map", "half_pixel", "edge", IMAGE_HOLDS, True, 0.005, 0.04, "ARCHITECTURE.md, The method"
)
NETDISSECT = Convention(
    "netdissect", "percentile", "map", "field", "edge", IMAGE_HOLDS, False, 0.005, 0.04, "Bau et al., CVPR 2017"
)
LITE = Convention(
    "lite", "percentile", "map", "half_pixel", "edge", MASK_TOUCHES, False, 0.005, 0.04, "NetDissect-Lite, 2018"
)
DISSECT2020 = Convention(
    "dissect2020", "order", "labels", "half_pixel", "zero", EVERY_IMAGE, True, 0.01, 0.04, "Bau et al., PNAS 2020"
)

CONVENTIONS = {convention.name: convention for convention in (EXACT, NETDISSECT, LITE, DISSECT2020)}


def get(name: str) -> Convention:
    """The convention of that name. Raises SpecError for an unknown one."""
    if name not in CONVENTIONS:
        raise SpecError(f"convention {name!r} is unknown: expected one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def pad_ring(maps: Tensor) -> Tensor:
    """maps [B, h, w, U] -> [B, h + 2, w + 2, U] with a ring of zeros."""
    padded = maps.new_zeros(maps.shape[0], maps.shape[1] + 2, maps.shape[2] + 2, maps.shape[3])
    padded[:, 1:-1, 1:-1] = maps
    return padded
