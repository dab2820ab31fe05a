"""How much an occlusion map depends on its occluder, which is an arbitrary choice: rank correlations between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dissect.attribution.gradients import Attribution
from dissect.attribution.network import Network
from dissect.attribution.occlusion.occlude import occlude
from dissect.attribution.occlusion.occluders import OCCLUDERS, Occluder, find_occluder
from dissect.attribution.ranking import rank_correlation
from dissect.attribution.targets import Target
from dissect.attribution.watching import Watch, nobody
from dissect.errors import SpecError


@dataclass(frozen=True)
class OccluderSensitivity:
    """correlation [N, O, O]: Spearman between the grids of two occluders; agreement [N]: its mean off the diagonal.

    1: the occluder does not matter. Near 0: the map shows the occluder, not the network.
    """

    occluders: tuple[str, ...]
    maps: tuple[Attribution, ...]
    correlation: Tensor
    agreement: Tensor

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "occluders": list(self.occluders),
            "correlation": self.correlation.tolist(),
            "agreement": self.agreement.tolist(),
        }


def occluder_sensitivity(
    network: Network,
    x: Tensor,
    target: Target,
    occluders: Sequence[str | Occluder] = tuple(OCCLUDERS),
    watch: Watch = nobody,
    **settings: Any,
) -> OccluderSensitivity:
    """Occlusion maps of x under each occluder, and how well they agree. watch: told the maps that are done. settings:
    those of `occlude`."""
    if len(occluders) < 2:
        raise SpecError(f"occluder sensitivity compares occluders: expected at least 2, found {len(occluders)}")
    found = [find_occluder(occluder) for occluder in occluders]
    count, maps = len(found), []
    for occluder in found:
        maps.append(occlude(network, x, target, occluder=occluder, **settings))
        watch(len(maps), count)
    table = torch.eye(count, dtype=torch.float64).repeat(len(x), 1, 1)
    for n in range(len(x)):
        for i in range(count):
            for j in range(i):
                value = rank_correlation(maps[i].values[n], maps[j].values[n])
                table[n, i, j] = table[n, j, i] = value
    agreement = (table.sum((1, 2)) - count) / (count * (count - 1))
    return OccluderSensitivity(tuple(o.name for o in found), tuple(maps), table, agreement)
