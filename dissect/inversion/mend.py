"""Where places of a code stay wrong, in a picture that is right elsewhere: others are tried, and taken place by place.

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

SEAMS = 60  # iterations that lower the seams away

# A task and where it starts (None: where its image says) -> where its steps lead.
Descend = Callable[[Task, Variables | None], Variables]


def mended(task: Task, number: int, variables: Variables, descend: Descend) -> tuple[Variables, Tensor]:
    """Round `number` of `task.mend`: another descent, from a new start while number < again, else a hop; and whether it
    gained anything, [B]. The energy of no sample rises."""
    mend, image = task.mend, task.image
    assert mend is not None
    assert isinstance(image, Spectrum)
    other = replace(task, seeds=draws.others(task.seeds, number))
    if number < mend.again:
        tried = descend(other, None)
    else:
        tried = descend(replace(other, phases=(mend.hop,)), variables)
    with torch.no_grad():
        here, there = image.image(variables), image.image(tried)
        better = (_places(task, there) < _places(task, here)).to(here)
        blend = torch.lerp(here, there, blur(better, mend.seam))
    joined, energy = lower(task, image.variables(blend), SEAMS)
    _, before = lower(task, variables, 0)
    kept = tuple(torch.where(per_sample(energy < before, x).bool(), new, x) for new, x in zip(joined, variables))
    return kept, before - energy > ENOUGH * before.abs()


def _places(task: Task, z: Tensor) -> Tensor:
    """What each place of the code and its neighbours are off, drawn over the picture, [B, 1, h, w]."""
    objective = task.objective
    assert isinstance(objective, At)
    assert isinstance(objective.score, CodeError)
    code = objective.network.features(z, [objective.layer])[objective.layer]
    off = objective.score.difference(code).square().sum(1, keepdim=True)
    near = F.avg_pool2d(off, 3, 1, 1, count_include_pad=False)
    return F.interpolate(near, z.shape[2:], mode="bilinear", align_corners=False)
