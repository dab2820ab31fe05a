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
    network: Network,
    x: Tensor,
    target: Target,
    mapper: Mapper,
    seed: int = 0,
    layers: int | None = None,
    maps: int | None = None,
) -> list[Stage]:
    """From the output down, each layer's weights are shuffled among themselves, which keeps their distribution.

    Works on a copy; the network given is not touched. layers: stop after so many. maps: look at so many stages only,
    evenly spaced, the last one among them. A map that stays like the true one all the way down shows the image, not the
    network. Layers above the target's own do not count: shuffling them changes nothing.
    """
    x = network.check_input(x)
    true = mapper(network, x, target)
    shuffled = Network(
        copy.deepcopy(network.module), network.mean, network.std, f"{network.name} with shuffled weights"
    )
    generator = torch.Generator().manual_seed(seed)
    run = list(network.probe(x).shapes)  # in order of execution, a part after what is inside it
    if target.layer in run:
        run = run[: run.index(target.layer) + 1]
    order = [name for name in run if any(True for _ in network.named[name].parameters(recurse=False))]
    order = list(reversed(order))[:layers]
    seen = _spaced(len(order), maps or len(order))
    stages = []
    for position, name in enumerate(order):
        _shuffle(shuffled.named[name], generator)
        if position not in seen:
            continue
        found = mapper(shuffled, x, target)
        pairs = list(zip(true, found))
        stages.append(
            Stage(
                name,
                sum(_likeness(a, b) for a, b in pairs) / len(pairs),
                sum(_likeness(a.abs(), b.abs()) for a, b in pairs) / len(pairs),
            )
        )
    return stages


def _spaced(count: int, wanted: int) -> set[int]:
    """`wanted` of the positions 0 to count - 1, evenly spaced, the last one among them."""
    wanted = min(max(wanted, 1), count)
    return {round((k + 1) * count / wanted) - 1 for k in range(wanted)}


def _likeness(a: Tensor, b: Tensor) -> float:
    """Rank correlation; 1 for a map that did not change at all, also where it is constant."""
    return 1.0 if torch.equal(a, b) else rank_correlation(a, b)


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
