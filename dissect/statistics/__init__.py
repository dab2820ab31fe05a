"""How far a number can be believed: intervals and stability from counts by block of images."""

from dissect.statistics.intervals import intervals
from dissect.statistics.null import Null, false_discovery_rates
from dissect.statistics.stability import stability

__all__ = ["Null", "false_discovery_rates", "intervals", "stability"]
