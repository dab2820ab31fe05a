"""Descent by stages, each on a smoother energy than the one asked for: graduated non-convexity (Blake & Zisserman
1987).

The energy of a deep code has an edge wherever a ReLU begins: so many that L-BFGS ends on them everywhere, in pieces too
small for its model of the energy. Rounded off, they leave a landscape that it can follow for thousands of iterations,
first with the code asked for loosely, then ever more strictly, at last with sharper and sharper edges.

Which valley a start comes to decides more than anything after, and shows early: so several starts of every sample go
through the first stages together, and those with the least energy go on.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from dissect.inversion import draws
from dissect.inversion.finish import settle
from dissect.inversion.images import Variables
from dissect.inversion.objectives import At, CodeError
from dissect.inversion.task import Stage, Task


def several(task: Task) -> np.ndarray:
    """Seeds of all the starts, uint64 [B * starts], those of a sample in a row; its first is its own."""
    rest = [draws.others(task.seeds, number) for number in range(1, task.starts)]
    return np.stack([task.seeds, *rest], 1).ravel()


def through(task: Task, stage: Stage, variables: Variables, watch: Callable[[int, Variables], None]) -> Variables:
    """What a stage makes of the starts [B * n, ...] that are left: the best `keep` of every sample, best first.
    `watch` is told after each round how many are done with, and the first start of every sample."""
    count = len(task.seeds)
    smooth = eased(task, stage, variables)
    found, energy = settle(smooth, variables, stage.rounds, lambda done, x: watch(done, firsts(x, count)))
    energies = energy.view(count, -1)
    best = energies.argsort(dim=1, stable=True)[:, : stage.keep]  # what is not finite comes last
    rows = (best + torch.arange(count, device=best.device)[:, None] * energies.shape[1]).flatten()
    return tuple(x[rows] for x in found)


def eased(task: Task, stage: Stage, variables: Variables) -> Task:
    """The task of a stage for all the starts [B * n, ...]; the ReLUs are rounded off by what comes to them now."""
    objective = task.objective
    assert isinstance(objective, At)
    assert isinstance(objective.score, CodeError)
    copies = len(variables[0]) // len(task.seeds)
    objective = replace(objective, score=objective.score.eased(stage.share, copies))
    if stage.softness:
        with torch.no_grad():
            objective = objective.rounded(task.image.image(variables), stage.softness)
    return replace(task, objective=objective, seeds=task.seeds.repeat(copies))


def firsts(variables: Variables, count: int) -> Variables:
    """The first start of each of `count` samples."""
    return tuple(x.unflatten(0, (count, -1))[:, 0] for x in variables)
