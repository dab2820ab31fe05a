"""What one map is worth when nobody knows the right place: the scores that ask the network, beside a random map."""

import torch
from torch import Tensor

from dissect.attribution.judge.randomisation import Mapper
from dissect.attribution.judge.scores import MASKED, SCORES, Answer, Settings
from dissect.attribution.judge.table import rival_class
from dissect.attribution.network import OUTPUT, Network
from dissect.attribution.targets import Target

BESIDE = ("deletion", "insertion")  # also taken of a random map, without which their values say little
CHANCE = ", random map"  # the end of their names then


def measure(
    network: Network, x: Tensor, target: Target, heat: Tensor, mapper: Mapper, settings: Settings | None = None
) -> dict[str, float]:
    """Scores of a map [H, W] that a method gave for x [1, C, H, W]: deletion, insertion (and both of a random map),
    sensitivity-n, randomisation, and for class targets class contrast with the strongest other class."""
    settings = settings or Settings(step=8 * x.shape[3])
    rival = rival_class(network, x, target) if target.layer == OUTPUT else None
    answer = Answer(network, x, target, heat.detach().cpu(), mapper, settings, None, rival)
    noise = torch.rand(heat.shape, generator=torch.Generator().manual_seed(settings.seed))
    blind = Answer(network, x, target, noise, mapper, settings)
    found: dict[str, float] = {}
    for name, score in SCORES.items():
        if name in MASKED or (name == "class contrast" and rival is None):
            continue
        found[name] = score(answer)
        if name in BESIDE:
            found[name + CHANCE] = score(blind)
    return found
