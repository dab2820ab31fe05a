"""Deletion and insertion: take pixels away in the order of a map, or put them back, and watch the score."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dissect.attribution.gradients import scores
from dissect.attribution.network import Network
from dissect.attribution.occlusion.occluders import gaussian_blur
from dissect.attribution.targets import Target
from dissect.errors import SpecError

# Deviation of the start of insertion. Petsiuk et al. cut their Gaussian to 11 x 11 pixels, ours goes on to 3
# deviations.
BLUR = 5.0


@dataclass(frozen=True)
class Curve:
    """scores [steps + 1] from the untouched start to the end, and their area by trapezoids over 0..1."""

    scores: Tensor
    area: float


def order(heat: Tensor, seed: int = 0) -> Tensor:
    """Flat places of a map [H, W] from high to low; equal values in a random order of this seed, so that a constant
    map is judged as a random order and not as reading order."""
    shuffled = torch.randperm(heat.numel(), generator=torch.Generator().manual_seed(seed))
    values = heat.detach().flatten().cpu()[shuffled]
    return shuffled[values.argsort(descending=True, stable=True)]


def _curve(
    network: Network, first: Tensor, last: Tensor, heat: Tensor, target: Target, step: int, batch: int, seed: int
) -> Curve:
    """From image `first` to `last` [1, C, H, W], `step` pixels at a time in the order of the map."""
    if heat.shape != first.shape[2:]:
        raise SpecError(f"map {list(heat.shape)} and image {list(first.shape[2:])}: expected one size")
    if step < 1:
        raise SpecError(f"{step} pixels a step: expected at least 1")
    place = torch.empty(heat.numel(), dtype=torch.int64)
    place[order(heat, seed)] = torch.arange(heat.numel())
    turn = (place // step).view(heat.shape).to(first.device)  # the step that changes a pixel
    steps = -(-heat.numel() // step)
    found = []
    for begin in range(0, steps + 1, batch):
        numbers = torch.arange(begin, min(begin + batch, steps + 1), device=first.device)
        changed = turn[None] < numbers[:, None, None]
        found.append(scores(network, torch.where(changed[:, None], last, first), target).to("cpu", torch.float64))
    values = torch.cat(found)
    return Curve(values, float(((values[1:] + values[:-1]) / 2).mean()))


def deletion(
    network: Network, x: Tensor, heat: Tensor, target: Target, step: int | None = None, batch: int = 32, seed: int = 0
) -> Curve:
    """Highest places first, each set to the mean colour; low is good (Petsiuk et al. 2018). x [1, C, H, W], heat [H,
    W].

    step: pixels at a time; one image row of them unless given. The target should be a probability.
    """
    x = network.check_input(x)
    return _curve(network, x, torch.zeros_like(x), heat, target, step or x.shape[3], batch, seed)


def insertion(
    network: Network, x: Tensor, heat: Tensor, target: Target, step: int | None = None, batch: int = 32, seed: int = 0
) -> Curve:
    """From a blurred image, highest places first, each shown as it is; high is good."""
    x = network.check_input(x)
    return _curve(network, gaussian_blur(x, BLUR), x, heat, target, step or x.shape[3], batch, seed)
