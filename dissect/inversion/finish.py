"""The end of a descent: from where the steps led, L-BFGS lowers the whole energy on, without noise or transforms.

Steps with noise stop well above the minimum of their valley, most of all at deep layers.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dissect.inversion.draws import Draws
from dissect.inversion.images import Variables
from dissect.inversion.lbfgs import minimise
from dissect.inversion.task import Task

ROUND = 100  # iterations between two looks at what they gained
PAIRS = 10
ENOUGH = 1e-2  # a sample whose energy fell by less than that share in a round is at its end


def finish(task: Task, variables: Variables, watch: Callable[[int, Variables], None]) -> Variables:
    """Lower the energy of every sample by at most `task.finish` rounds. `watch` is told after each how many are done
    with, all of them at the end, and the variables.

    An energy that is not finite is left as it is. Samples do not touch one another.
    """
    shapes, sizes = [x.shape for x in variables], [x[0].numel() for x in variables]
    flat = torch.cat([x.flatten(1) for x in variables], 1)
    draws = Draws(task.seeds, task.steps)

    def split(rows: Tensor) -> Variables:
        return tuple(part.view(shape) for part, shape in zip(rows.split(sizes, 1), shapes))

    def energies(rows: Tensor) -> tuple[Tensor, Tensor]:
        leaf = rows.detach().requires_grad_(True)
        image = task.image.image(split(leaf))
        total = task.objective(image, draws) + task.weighed(image)
        (gradient,) = torch.autograd.grad(total.sum(), leaf)
        return total.detach(), gradient

    def energy(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        flat[rows] = x  # the others stay where they were looked at last, and nobody asks what they give
        total, gradient = energies(flat)
        return total[rows], gradient[rows]

    before, _ = energies(flat)
    going = torch.ones_like(before, dtype=torch.bool)

    def judge(number: int, x: Tensor, value: Tensor) -> Tensor:
        if number % ROUND == 0:
            going.logical_and_(before - value > ENOUGH * before.abs())
            before.copy_(value)
            watch(min(number // ROUND, task.finish - 1), split(x))
        return going

    bound = flat.new_tensor(torch.inf)
    last = split(minimise(energy, flat.clone(), -bound, bound, task.finish * ROUND, PAIRS, 0.0, judge).x)
    watch(task.finish, last)
    return last
