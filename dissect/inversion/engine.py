"""The one loop behind inversion, maximum impulses, dreams, illusions and gradient fooling.

A Task names its parts: an objective, an image (what is optimised), priors, and phases with their transforms and
constraints. Samples of a batch never touch one another; all chance comes from (seed, step), so a run is a function of
its Task, and a stopped run resumes from its state file to the same bits.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dissect.errors import DissectError
from dissect.inversion.draws import Draws
from dissect.inversion.finish import settle
from dissect.inversion.graduate import firsts, through
from dissect.inversion.images import Variables
from dissect.inversion.mend import mended
from dissect.inversion.moves import Place, move
from dissect.inversion.optimisers import per_sample
from dissect.inversion.pixels import in_ball
from dissect.inversion.state import State, fingerprint
from dissect.inversion.task import Stage, Task, described

STRIKES = 3  # a sample that is not finite is stepped back, at half the rate, so often, then stopped
FLAT = 3  # so many first steps without any gradient: none will come
IDLE = 8  # rounds of mending without a gain: no more will be had


@dataclass(frozen=True)
class Glance:
    """What a watcher is shown: steps (and rounds after them) done and in all, how to render the images now, and the
    last step's energies."""

    done: int
    steps: int
    render: Callable[[], Tensor]
    energies: Tensor


Watcher = Callable[[Glance], None]


@dataclass
class Outcome:
    """images z [B, C, h, w]; energy, total [steps, B] (objective alone, and with priors, whatever a phase weighs them;
    one more for each stage, after it); stopped: reason or None; parts: the task in words."""

    images: Tensor
    energy: np.ndarray
    total: np.ndarray
    stopped: list[str | None]
    seconds: float
    parts: dict[str, object]
    resumed_at: int = 0


def _choose(keep: Tensor, kept: Variables, other: Variables) -> Variables:
    """kept where `keep` [B] holds, else other."""
    return tuple(torch.where(per_sample(keep, a).bool(), a, b) for a, b in zip(kept, other))


def _step(task: Task, state: State) -> None:
    phase, within = task.phase(state.step)
    rate, share = phase.at(within)
    if phase.reset and within == 0:
        state.memory = tuple(torch.zeros_like(x) for x in state.memory)
        state.since_reset = 0
    draws = Draws(task.seeds, state.step)
    variables = tuple(x.detach().requires_grad_(True) for x in state.variables)
    image = task.image.image(variables)
    seen = image
    for transform in phase.transforms:
        seen = transform(seen, draws)
    energy = task.objective(seen, draws)
    place = Place(
        variables, image, energy * phase.rise ** (1 - share), state.memory, rate * state.factor, draws, within, share,
        state.since_reset,
    )  # fmt: skip
    moved = move(task, phase, place)
    total = energy.detach() + moved.priors
    finite = torch.isfinite(total) & torch.isfinite(moved.size)
    if state.step < FLAT:
        state.flat = torch.where((moved.size == 0) & finite, state.flat + 1, 0)
    alive = (state.strikes < STRIKES) & (state.flat < FLAT)
    good = finite & alive
    if bool(good.all()):
        state.previous, state.variables, state.memory = state.variables, moved.variables, moved.memory
    else:
        back = alive & ~finite
        state.strikes = state.strikes + back.long()
        state.factor = torch.where(back, state.factor / 2, state.factor)
        variables = state.variables
        idle = _choose(back, state.previous, variables)
        kept = tuple(torch.zeros_like(x) for x in state.memory)
        # Memory is slot-major: every slot holds one tensor a variable.
        state.memory = _choose(good, moved.memory, _choose(back, kept, state.memory))
        state.variables = _choose(good, moved.variables, idle)
        state.previous = _choose(good, variables, state.previous)
    state.energy[state.step], state.total[state.step] = energy.detach(), total
    state.step += 1
    state.since_reset += 1


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """Batches of one run as one outcome."""
    if len(outcomes) == 1:
        return outcomes[0]
    return Outcome(
        torch.cat([one.images for one in outcomes]),
        np.concatenate([one.energy for one in outcomes], 1),
        np.concatenate([one.total for one in outcomes], 1),
        [reason for one in outcomes for reason in one.stopped],
        sum(one.seconds for one in outcomes),
        outcomes[0].parts,
        min(one.resumed_at for one in outcomes),
    )


def batches(count: int, size: int, state_file: Path | None) -> list[tuple[slice, Path | None]]:
    """Slices of at most `size` samples, each with a state file of its own."""
    slices = [slice(first, min(first + size, count)) for first in range(0, count, size)]
    if state_file is None or len(slices) == 1:
        return [(part, state_file) for part in slices]
    return [(part, state_file.with_stem(f"{state_file.stem}-{part.start}")) for part in slices]


@torch.no_grad()
def _render(task: Task, variables: Variables) -> Tensor:
    z = task.image.image(variables)
    return z if task.image.radius is None else in_ball(z, task.image.radius)


def _descend(task: Task, variables: Variables | None) -> Variables:
    """Where the steps of a task lead from a start."""
    state = State.begin(task, variables)
    while state.step < task.steps:
        _step(task, state)
    return state.variables


def _reasons(state: State) -> list[str | None]:
    reasons: list[str | None] = []
    for strikes, flat in zip(state.strikes.tolist(), state.flat.tolist()):
        if strikes >= STRIKES:
            reasons.append(f"the objective was not finite, also after stepping back {STRIKES} times at half the rate")
        elif flat >= FLAT:
            reasons.append("no gradient reaches the image: the layer, the unit or the start is flat")
        else:
            reasons.append(None)
    return reasons


def _stage(task: Task, stage: Stage, state: State, watch: Callable[[int, Variables], None]) -> None:
    """One stage; what is recorded of it is the energy that the task asks for, of the best start."""
    state.variables = through(task, stage, state.variables, watch)
    state.previous = state.variables
    with torch.no_grad():
        image = task.image.image(firsts(state.variables, len(task.seeds)))
        energy = task.objective(image, Draws(task.seeds, state.step))
        total = energy + task.weighed(image)
    state.energy[state.step], state.total[state.step] = energy, total
    state.strikes[~torch.isfinite(total)] = STRIKES
    state.step += 1


def _end(task: Task, state: State, look: Callable[[int, Variables], None], keep: Callable[[], None]) -> None:
    """What follows the steps."""
    done = task.steps
    for number, stage in enumerate(task.stages, task.steps):
        if state.step == number:
            _stage(task, stage, state, lambda rounds, x, done=done: look(done + rounds, x))  # type: ignore[misc]
            keep()
            if not _alive(state):
                raise _refusal(task, state)
        done += stage.rounds
    if task.finish and not state.finished:
        state.variables, _ = settle(task, state.variables, task.finish, lambda rounds, x: look(done + rounds, x))
        state.finished = True
        keep()
    done += task.finish
    while task.mend is not None and state.rounds < task.mend.rounds:
        going = state.idle < IDLE
        if not bool(going.any()):
            look(task.steps + task.rounds, state.variables)
            return
        better, gained = mended(task, state.rounds, state.variables, _descend)
        state.variables = _choose(going, better, state.variables)
        state.idle = torch.where(going, torch.where(gained, 0, state.idle + 1), state.idle)
        state.rounds += 1
        keep()
        look(done + state.rounds, state.variables)


def _alive(state: State) -> bool:
    """Whether any sample can go on."""
    return bool(((state.strikes < STRIKES) & (state.flat < FLAT)).any())


def _refusal(task: Task, state: State) -> DissectError:
    return DissectError(f"stopped at step {state.step} of {task.steps + len(task.stages)}: {_reasons(state)[0]}")


def run(
    task: Task,
    state_file: Path | None = None,
    identity: object = None,
    save_every: int = 50,
    watch: Watcher | None = None,
) -> Outcome:
    """Optimise to the end, resuming from `state_file` where it holds an unfinished run of the same `identity`.

    A sample that cannot go on keeps its last good image and gets a reason. Raises DissectError when none can go on;
    the state file then holds the last good state.
    """
    began = time.monotonic()
    known = fingerprint(identity)
    state = State.begin(task)
    if state_file is not None:
        state = state.saved(state_file, known)
    resumed_at, whole = state.step, task.steps + task.rounds

    def look(done: int, variables: Variables) -> None:
        if watch is not None:
            watch(Glance(done, whole, partial(_render, task, variables), state.total[max(0, state.step - 1)]))

    def keep() -> None:
        if state_file is not None:
            state.save(state_file, known)

    while state.step < task.steps:
        _step(task, state)
        if state.step % save_every == 0 or state.step == task.steps:
            keep()
        if not _alive(state):
            keep()
            raise _refusal(task, state)
        look(state.step, state.variables)
    _end(task, state, look, keep)
    return Outcome(
        _render(task, state.variables), state.energy.cpu().numpy(), state.total.cpu().numpy(), _reasons(state),
        time.monotonic() - began, described(task), resumed_at,
    )  # fmt: skip
