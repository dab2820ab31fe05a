"""Where a descent was caught: others are tried, and what is better is taken, place by place.

A layer that sees few pixels at a place has as many separate traps as places, and every descent ends with some places
caught, but not the same ones. Of two pictures each place is taken from the one whose code is nearer there, the
seams are lowered away, and the whole is kept if its energy is lower: recombination of local minima, then basin hopping
(Wales & Doye 1997) whose hops are judged by place.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from dissect.inversion import draws
from dissect.inversion.constraints import blur
from dissect.inversion.finish import ENOUGH, lower
from dissect.inversion.images import Spectrum, Variables
from dissect.inversion.objectives import At, CodeError
from dissect.inversion.optimisers import per_sample
from dissect.inversion.task import Task

# A task and where it starts (None: where its image says) -> where its steps lead.
Descend = Callable[[Task, Variables | None], Variables]


def mended(task: Task, number: int, variables: Variables, descend: Descend) -> tuple[Variables, Tensor]:
    """Round `number` of `task.mend`: another descent, from a new start while number < again, else a hop; and whether it
    gained anything, [B]. The energy of no sample rises."""
    mend = task.mend
    assert mend is not None
    other = replace(task, seeds=draws.others(task.seeds, number))
    if number < mend.again:
        tried = descend(other, None)
    else:
        tried = descend(replace(other, phases=(mend.hop,)), variables)
    found, energy = lower(task, _joined(task, variables, tried, mend.seam), mend.iterations)
    _, before = lower(task, variables, 0)
    kept = tuple(torch.where(per_sample(energy < before, x).bool(), new, x) for new, x in zip(found, variables))
    return kept, before - energy > ENOUGH * before.abs()


@torch.no_grad()
def _joined(task: Task, variables: Variables, tried: Variables, seam: float) -> Variables:
    """One picture with each place from where its code is nearer."""
    image = task.image
    assert isinstance(image, Spectrum)
    here, there = image.image(variables), image.image(tried)
    better = (_places(task, there) < _places(task, here)).to(here)
    return image.variables(torch.lerp(here, there, blur(better, seam)))


def _places(task: Task, z: Tensor) -> Tensor:
    """What each place of the code and its neighbours are off, drawn over the picture, [B, 1, h, w]."""
    objective = task.objective
    assert isinstance(objective, At)
    assert isinstance(objective.score, CodeError)
    code = objective.network.features(z, [objective.layer])[objective.layer]
    off = objective.score.difference(code).square().sum(1, keepdim=True)
    near = F.avg_pool2d(off, 3, 1, 1, count_include_pad=False)
    return F.interpolate(near, z.shape[2:], mode="bilinear", align_corners=False)
