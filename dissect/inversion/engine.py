"""The one loop behind inversion, maximum impulses, dreams, illusions and gradient fooling.

A Task names its parts: an objective, an image (what is optimised), priors, and phases with their transforms and
constraints. Samples of a batch never touch one another; all chance comes from (seed, step), so a run is a function of
its Task, and a stopped run resumes from its state file to the same bits.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dissect import checkpoint
from dissect.errors import DissectError, SpecError
from dissect.inversion.draws import Draws
from dissect.inversion.finish import finish
from dissect.inversion.images import Variables
from dissect.inversion.mend import mended
from dissect.inversion.moves import Place, move
from dissect.inversion.optimisers import per_sample
from dissect.inversion.pixels import in_ball
from dissect.inversion.task import Task, described

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
    """images z [B, C, h, w]; energy, total [steps, B] (objective alone, and with priors, whatever a phase weighs them);
    stopped: reason or None; parts: the task in words."""

    images: Tensor
    energy: np.ndarray
    total: np.ndarray
    stopped: list[str | None]
    seconds: float
    parts: dict[str, object]
    resumed_at: int = 0


@dataclass
class _State:
    variables: Variables
    memory: Variables
    previous: Variables
    factor: Tensor
    strikes: Tensor
    flat: Tensor
    idle: Tensor  # rounds of the mend, up to the last, that gained nothing
    # [steps, B], written in place: small tensors kept between the large ones of every step tear the heap to pieces.
    energy: Tensor
    total: Tensor
    step: int = 0
    since_reset: int = 0
    finished: bool = False
    rounds: int = 0  # of the mend


def fingerprint(spec: object) -> str:
    """sha256 of a JSON value: what a state file belongs to."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True, default=str).encode()).hexdigest()


def _start(task: Task, variables: Variables | None = None) -> _State:
    variables = task.image.start(task.seeds) if variables is None else variables
    count, device = len(task.seeds), variables[0].device
    return _State(
        variables,
        tuple(torch.zeros_like(x) for _ in range(task.optimiser.slots) for x in variables),
        variables,
        torch.ones(count, device=device),
        torch.zeros(count, dtype=torch.int64, device=device),
        torch.zeros(count, dtype=torch.int64, device=device),
        torch.zeros(count, dtype=torch.int64, device=device),
        torch.zeros(task.steps, count, dtype=variables[0].dtype, device=device),
        torch.zeros(task.steps, count, dtype=variables[0].dtype, device=device),
    )


def _save(path: Path, state: _State, identity: str) -> None:
    arrays = {f"variable{i}": x for i, x in enumerate(state.variables)}
    arrays |= {f"memory{i}": x for i, x in enumerate(state.memory)}
    arrays |= {f"previous{i}": x for i, x in enumerate(state.previous)}
    arrays |= {"factor": state.factor, "strikes": state.strikes, "flat": state.flat, "idle": state.idle}
    arrays |= {"energy": state.energy[: state.step], "total": state.total[: state.step]}
    meta: dict[str, object] = {
        "identity": identity, "step": state.step, "since_reset": state.since_reset, "finished": state.finished,
        "rounds": state.rounds,
    }  # fmt: skip
    checkpoint.save(path, checkpoint.State(meta, {name: x.cpu().numpy() for name, x in arrays.items()}))


def _load(path: Path, fresh: _State, identity: str) -> _State:
    saved = checkpoint.load(path)
    if saved is None:
        return fresh
    if saved.meta["identity"] != identity:
        raise SpecError(f"{path.name} belongs to a run with other settings: choose another --out, or remove the file")
    device = fresh.factor.device

    def read(name: str, count: int) -> Variables:
        return tuple(torch.from_numpy(saved.arrays[f"{name}{i}"]).to(device) for i in range(count))

    def one(name: str) -> Tensor:
        return torch.from_numpy(saved.arrays[name]).to(device)

    step = int(saved.meta["step"])
    fresh.energy[:step], fresh.total[:step] = one("energy"), one("total")
    return _State(
        read("variable", len(fresh.variables)),
        read("memory", len(fresh.memory)),
        read("previous", len(fresh.previous)),
        one("factor"),
        one("strikes"),
        one("flat"),
        one("idle"),
        fresh.energy,
        fresh.total,
        step,
        int(saved.meta["since_reset"]),
        bool(saved.meta["finished"]),
        int(saved.meta["rounds"]),
    )


def _choose(keep: Tensor, kept: Variables, other: Variables) -> Variables:
    """kept where `keep` [B] holds, else other."""
    return tuple(torch.where(per_sample(keep, a).bool(), a, b) for a, b in zip(kept, other))


def _step(task: Task, state: _State) -> None:
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
    state = _start(task, variables)
    while state.step < task.steps:
        _step(task, state)
    return state.variables


def _reasons(state: _State) -> list[str | None]:
    reasons: list[str | None] = []
    for strikes, flat in zip(state.strikes.tolist(), state.flat.tolist()):
        if strikes >= STRIKES:
            reasons.append(f"the objective was not finite, also after stepping back {STRIKES} times at half the rate")
        elif flat >= FLAT:
            reasons.append("no gradient reaches the image: the layer, the unit or the start is flat")
        else:
            reasons.append(None)
    return reasons


def _end(task: Task, state: _State, look: Callable[[int, Variables], None], keep: Callable[[], None]) -> None:
    """What follows the steps."""
    if task.finish and not state.finished:
        state.variables, state.finished = finish(task, state.variables, look), True
        keep()
    while task.mend is not None and state.rounds < task.mend.rounds:
        going = state.idle < IDLE
        if not bool(going.any()):
            look(task.rounds, state.variables)
            return
        better, gained = mended(task, state.rounds, state.variables, _descend)
        state.variables = _choose(going, better, state.variables)
        state.idle = torch.where(going, torch.where(gained, 0, state.idle + 1), state.idle)
        state.rounds += 1
        keep()
        look(task.finish + state.rounds, state.variables)


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
    state = _start(task)
    if state_file is not None:
        state = _load(state_file, state, known)
    resumed_at, whole = state.step, task.steps + task.rounds
    while state.step < task.steps:
        _step(task, state)
        if state_file is not None and (state.step % save_every == 0 or state.step == task.steps):
            _save(state_file, state, known)
        if not bool(((state.strikes < STRIKES) & (state.flat < FLAT)).any()):
            if state_file is not None:
                _save(state_file, state, known)
            raise DissectError(f"stopped at step {state.step} of {task.steps}: {_reasons(state)[0]}")
        if watch is not None:
            watch(Glance(state.step, whole, partial(_render, task, state.variables), state.total[state.step - 1]))

    def look(rounds: int, variables: Variables) -> None:
        if watch is not None:
            watch(Glance(task.steps + rounds, whole, partial(_render, task, variables), state.total[-1]))

    def keep() -> None:
        if state_file is not None:
            _save(state_file, state, known)

    _end(task, state, look, keep)
    return Outcome(
        _render(task, state.variables), state.energy.cpu().numpy(), state.total.cpu().numpy(), _reasons(state),
        time.monotonic() - began, described(task), resumed_at,
    )  # fmt: skip
