"""Does a map depend on what the network has learnt, and on the class asked for? (Adebayo et al. 2018, arXiv
1810.03292)"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.attribution.network import Network
from dissect.attribution.ranking import rank_correlation
from dissect.attribution.targets import Target

Mapper = Callable[[Network, Tensor, Target], Tensor]  # -> maps [N, H, W]


@dataclass(frozen=True)
class Stage:
    """The map after a layer and all above it lost their weights, against the true map: Spearman over the pixels."""

    layer: str
    correlation: float
    absolute: float  # the same for the magnitudes


def cascading_randomisation(
    network: Network, x: Tensor, target: Target, mapper: Mapper, seed: int = 0, layers: int | None = None
) -> list[Stage]:
    """From the output down, each layer's weights are shuffled among themselves, which keeps their distribution.

    Works on a copy; the network given is not touched. layers: stop after so many. A map that stays like the true one
    all the way down shows the image, not the network.
    """
    x = network.check_input(x)
    true = mapper(network, x, target)
    shuffled = Network(
        copy.deepcopy(network.module), network.mean, network.std, f"{network.name} with shuffled weights"
    )
    generator = torch.Generator().manual_seed(seed)
    order = [
        name for name in network.probe(x).shapes if any(True for _ in network.named[name].parameters(recurse=False))
    ]
    stages = []
    for name in list(reversed(order))[:layers]:
        _shuffle(shuffled.named[name], generator)
        found = mapper(shuffled, x, target)
        pairs = list(zip(true, found))
        stages.append(
            Stage(
                name,
                sum(rank_correlation(a, b) for a, b in pairs) / len(pairs),
                sum(rank_correlation(a.abs(), b.abs()) for a, b in pairs) / len(pairs),
            )
        )
    return stages


@torch.no_grad()
def _shuffle(part: nn.Module, generator: torch.Generator) -> None:
    for parameter in part.parameters(recurse=False):
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))


def class_contrast(network: Network, x: Tensor, targets: tuple[Target, Target], mapper: Mapper) -> float:
    """Mean cosine between the maps of two targets: 1 = the map does not tell which class was asked for."""
    x = network.check_input(x)
    one, two = (mapper(network, x, target).flatten(1).to(torch.float64) for target in targets)
    return float(F.cosine_similarity(one, two, dim=1).mean())
