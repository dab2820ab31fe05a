"""The move of one step, from the objective's energy on: in parts as a task names them, or, where they are those of
natural pre-images (IJCV'16), in one read of the picture."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dissect import ops
from dissect.inversion.constraints import PixelBall
from dissect.inversion.draws import Draws
from dissect.inversion.images import Variables
from dissect.inversion.optimisers import Forgetful, per_sample
from dissect.inversion.priors import Natural
from dissect.inversion.task import Phase, Task


@dataclass(frozen=True)
class Place:
    """Where a step stands. energy [B] of the objective, differentiable; rate [B]; `within` and `share` of the phase."""

    variables: Variables
    image: Tensor
    energy: Tensor
    memory: Variables
    rate: Tensor
    draws: Draws
    within: int
    share: float
    since_reset: int


@dataclass(frozen=True)
class Moved:
    """priors [B]: their weighted energy; size [B]: sum of |gradient|, which is finite just where all of it is (an
    overflow counts as infinite), and 0 just where there is none."""

    variables: Variables
    memory: Variables
    priors: Tensor
    size: Tensor


def move(task: Task, phase: Phase, place: Place) -> Moved:
    """What a step makes of the variables and of the optimiser's memory, which it may overwrite."""
    return _at_once(task, phase, place) if _natural(task, phase, place) else _in_parts(task, phase, place)


def _in_parts(task: Task, phase: Phase, place: Place) -> Moved:
    priors = task.weighed(place.image)
    gradients = torch.autograd.grad((place.energy + priors).sum(), place.variables)
    variables = tuple(x.detach() for x in place.variables)
    moved, memory = task.optimiser.step(variables, gradients, place.memory, place.rate, place.since_reset)
    if phase.noise:
        moved = tuple(x + per_sample(phase.noise * place.rate, x) * place.draws.normal(x) for x in moved)
    if task.image.free:
        pixels = moved[0]
        for constraint in phase.constraints:
            pixels = constraint(pixels, gradients[0], place.within, place.share)
        moved = (pixels, *moved[1:])
    size = torch.stack([torch.linalg.vector_norm(g.flatten(1), 1, dim=1) for g in gradients]).sum(0)
    return Moved(moved, memory, priors.detach(), size)


def _natural(task: Task, phase: Phase, place: Place) -> bool:
    """Whether `ops.descend` is the whole of this step."""
    return (
        task.image.free
        and [type(prior) for _, prior in task.priors] == [Natural]
        and [type(constraint) for constraint in phase.constraints] == [PixelBall]
        and isinstance(task.optimiser, Forgetful)
        and not phase.noise
        and Natural.read_at_once(place.image)
    )


def _at_once(task: Task, phase: Phase, place: Place) -> Moved:
    ((weight, prior),), (ball,), optimiser = task.priors, phase.constraints, task.optimiser
    squares, speeds = place.memory
    assert isinstance(prior, Natural)
    assert isinstance(ball, PixelBall)
    assert isinstance(optimiser, Forgetful)
    (gradient,) = torch.autograd.grad(place.energy.sum(), place.variables)
    z = place.variables[0].detach()
    alpha, lengths, beta, variation = prior.scales(z)
    moved, rows = torch.empty_like(z), z.new_empty(len(z), z.shape[2], 2, dtype=torch.float64)
    ops.descend(
        z, gradient.contiguous(), alpha, weight * lengths, beta, weight * variation, place.rate, optimiser.mu,
        optimiser.memory, ball.radius, squares, speeds, moved, rows,
    )  # fmt: skip
    energy, size = rows.sum(1).unbind(1)
    return Moved((moved,), place.memory, energy.to(z.dtype), size)
