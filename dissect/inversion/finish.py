"""The end of a descent: from where the steps led, L-BFGS lowers the whole energy on, without noise or transforms.

Steps with noise stop well above the minimum of their valley, and the more so the deeper the layer.
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
    with, all of them once nobody goes on, and the variables.

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
        total = task.objective(image, draws)
        for weight, prior in task.priors:
            total = total + weight * prior(image)
        (gradient,) = torch.autograd.grad(total.sum(), leaf)
        return total.detach(), gradient

    live = torch.arange(len(flat), device=flat.device)
    for number in range(1, task.finish + 1):

        def energy(x: Tensor, rows: Tensor, live: Tensor = live) -> tuple[Tensor, Tensor]:
            whole = flat.clone()
            whole[live[rows]] = x
            total, gradient = energies(whole)
            return total[live[rows]], gradient[live[rows]]

        before, _ = energies(flat)
        bound = flat.new_tensor(torch.inf)
        found = minimise(energy, flat[live], -bound, bound, ROUND, PAIRS, tolerance=0.0)
        flat[live] = found.x
        live = live[(before[live] - found.value) > ENOUGH * before[live].abs()]
        watch(number if len(live) else task.finish, split(flat))
        if not len(live):
            break
    return split(flat)
