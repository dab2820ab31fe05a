"""Linear bases beside a network: the units of a layer seen along other directions than its own axes.

A basis reads the maps of a layer and never touches the network, so predictions stay what they are. Method: Bau et al.,
CVPR 2017, section 3.2 and PNAS 2020: if concepts are aligned with units, rotating the units makes detectors rarer.
"""

from dissect.bases.basis import Basis
from dissect.bases.recipe import Recipe, parse, recipe
from dissect.bases.rotation import power, random_directions, random_rotation

__all__ = ["Basis", "Recipe", "parse", "power", "random_directions", "random_rotation", "recipe"]
