"""How far a number can be believed: intervals and stability from counts by block of images."""

from dissect.statistics.intervals import intervals
from dissect.statistics.stability import stability

__all__ = ["intervals", "stability"]
