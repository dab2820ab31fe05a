"""One optimisation in named parts: what is asked, what is varied, and how it goes from step to step."""

from dataclasses import dataclass, is_dataclass

import numpy as np
from torch import Tensor

from dissect.inversion.constraints import Constraint
from dissect.inversion.images import Image
from dissect.inversion.objectives import Objective
from dissect.inversion.optimisers import Optimiser
from dissect.inversion.priors import Prior
from dissect.inversion.transforms import Transform


@dataclass(frozen=True)
class Phase:
    """Steps at one setting. The rate goes from `rate` to `end`, in a line or by equal `ratios`; with `reset` the
    optimiser starts afresh. rise: the objective's weight grows from that to 1 by equal ratios, the priors' does not.
    noise: standard deviation of what is added to every variable after a step, in rates.
    """

    steps: int
    rate: float
    end: float | None = None
    transforms: tuple[Transform, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    reset: bool = False
    ratios: bool = False
    rise: float = 1.0
    noise: float = 0.0

    def at(self, step: int) -> tuple[float, float]:
        """Rate of a step, and the share of the phase that lies behind it."""
        share = step / max(1, self.steps - 1)
        end = self.rate if self.end is None else self.end
        return self.rate * (end / self.rate) ** share if self.ratios else self.rate + (end - self.rate) * share, share


@dataclass(frozen=True)
class Stage:
    """Rounds of L-BFGS on an eased energy, at most so many (see `graduate`): a `share` of the objective's weight, and
    ReLUs rounded off over `softness` standard deviations of their inputs. keep: starts of a sample that go on."""

    rounds: int
    share: float = 1.0
    softness: float = 0.0
    keep: int = 1


@dataclass(frozen=True)
class Mend:
    """Rounds after the descent (see `mend`): so many descents from new starts, then so many hops; so many iterations of
    L-BFGS after each. seam: pixels over which pictures are blended where they are taken place by place."""

    again: int
    hops: int
    hop: Phase
    iterations: int
    seam: float

    @property
    def rounds(self) -> int:
        return self.again + self.hops


@dataclass(frozen=True)
class Task:
    """One optimisation of a batch. seeds: uint64 [B] of `draws.seeds`; priors: (weight, prior); stages: what follows
    the phases, or stands in their place, with `starts` starts a sample; finish: rounds of L-BFGS at the end (see
    `finish`), and what follows them."""

    objective: Objective
    image: Image
    phases: tuple[Phase, ...]
    optimiser: Optimiser
    seeds: np.ndarray
    priors: tuple[tuple[float, Prior], ...] = ()
    finish: int = 0
    mend: Mend | None = None
    stages: tuple[Stage, ...] = ()
    starts: int = 1

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    @property
    def rounds(self) -> int:
        """Rounds after the steps."""
        staged = sum(stage.rounds for stage in self.stages)
        return staged + self.finish + (self.mend.rounds if self.mend else 0)

    def weighed(self, image: Tensor) -> Tensor:
        """Weighted energy of all priors of an image [B, C, h, w], [B]."""
        total = image.new_zeros(len(image))
        for weight, prior in self.priors:
            if weight:
                total = total + weight * prior(image)
        return total

    def phase(self, step: int) -> tuple[Phase, int]:
        """The phase of a step, and the step's number within it."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise IndexError(step)


def described(task: Task) -> dict[str, object]:
    """The parts of a task by name with their settings, tensors left out: what a database can say of it."""
    return {
        "objective": _named(task.objective),
        "image": _named(task.image),
        "priors": [{"weight": float(weight), **_named(prior)} for weight, prior in task.priors],
        "phases": [_phase(phase) for phase in task.phases],
        "optimiser": _named(task.optimiser),
        "finish": task.finish,
        "mend": _mend(task.mend) if task.mend else None,
        "stages": [_named(stage) for stage in task.stages],
        "starts": task.starts,
    }


def _phase(phase: Phase) -> dict[str, object]:
    return {
        "steps": phase.steps,
        "rate": phase.rate,
        "end": phase.end,
        "ratios": phase.ratios,
        "rise": phase.rise,
        "noise": phase.noise,
        "transforms": [_named(part) for part in phase.transforms],
        "constraints": [_named(part) for part in phase.constraints],
    }


def _mend(mend: Mend) -> dict[str, object]:
    return {
        "again": mend.again,
        "hops": mend.hops,
        "hop": _phase(mend.hop),
        "iterations": mend.iterations,
        "seam": mend.seam,
    }


def _named(part: object) -> dict[str, object]:
    found: dict[str, object] = {"kind": type(part).__name__}
    for name, value in vars(part).items() if hasattr(part, "__dict__") else ():
        if isinstance(value, bool | int | float | str):
            found[name] = value
        elif isinstance(value, tuple) and all(isinstance(one, bool | int | float | str) for one in value):
            found[name] = list(value)
        elif is_dataclass(value):
            found[name] = _named(value)
    return found
