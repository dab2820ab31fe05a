"""L-BFGS on the whole energy, without noise or transforms: to the end of the valley that a descent has come to.

Steps with noise stop well above that, most of all at deep layers.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dissect.inversion.draws import Draws
from dissect.inversion.images import Variables
from dissect.inversion.lbfgs import Judge, minimise
from dissect.inversion.task import Task

ROUND = 100  # iterations between two looks at what they gained
PAIRS = 20
ENOUGH = 1e-3  # a sample whose energy fell by less than that share in a round is at its end


def lower(task: Task, variables: Variables, iterations: int, judge: Judge | None = None) -> tuple[Variables, Tensor]:
    """Lower the energy of every sample by at most so many iterations of L-BFGS: variables and energies [B].

    An energy that is not finite is left as it is. Samples do not touch one another.
    """
    split = _splitter(variables)
    flat = torch.cat([x.flatten(1) for x in variables], 1)
    draws = Draws(task.seeds, task.steps)

    def energy(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        flat[rows] = x  # the others stay where they were looked at last, and nobody asks what they give
        leaf = flat.detach().requires_grad_(True)
        image = task.image.image(split(leaf))
        total = task.objective(image, draws) + task.weighed(image)
        (gradient,) = torch.autograd.grad(total.sum(), leaf)
        return total.detach()[rows], gradient[rows]

    bound = flat.new_tensor(torch.inf)
    found = minimise(energy, flat.clone(), -bound, bound, iterations, PAIRS, 0.0, judge)
    return split(found.x), found.value


def settle(
    task: Task, variables: Variables, rounds: int, watch: Callable[[int, Variables], None]
) -> tuple[Variables, Tensor]:
    """Lower the energy of every sample for as long as a round pays, at most so many: variables and energies [B].

    `watch` is told after each round how many are done with, all of them at the end, and the variables.
    """
    split = _splitter(variables)
    before: Tensor | None = None
    going = torch.ones(len(variables[0]), dtype=torch.bool, device=variables[0].device)

    def judge(number: int, x: Tensor, value: Tensor) -> Tensor:
        nonlocal before
        if number % ROUND == 0:
            if before is not None:
                going.logical_and_(before - value > ENOUGH * before.abs())
            before = value.clone()
            watch(min(number // ROUND, rounds - 1), split(x))
        return going

    last, energy = lower(task, variables, rounds * ROUND, judge)
    watch(rounds, last)
    return last, energy


def _splitter(variables: Variables) -> Callable[[Tensor], Variables]:
    """From rows [B, n] to tensors as the variables are."""
    shapes, sizes = [x.shape for x in variables], [x[0].numel() for x in variables]
    return lambda rows: tuple(part.view(shape) for part, shape in zip(rows.split(sizes, 1), shapes))
