"""L-BFGS inside a box, for a batch: each row has its own history, line search and end, and counts its own evaluations.

Projected quasi-Newton: variables at a bound whose gradient points outwards are held, the two loops run over the
others, and steps are searched along the projected path with Armijo's rule (Bertsekas 1982; Byrd et al. 1995 for the
setting). Where torch offers only one problem at a time, this takes all images of a batch through one forward.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ARMIJO = 1e-4
ROUNDING = 10  # a step that gains less than so many units in the last place is no progress
TRIALS = 12

# x [b, n] and the numbers of its rows in the batch [b] -> energies [b], gradients [b, n].
Energy = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
# Iterations done, x [B, n], value [B] -> which rows may go on, bool [B].
Judge = Callable[[int, Tensor, Tensor], Tensor]


@dataclass
class Minimum:
    """x [B, n], value [B], evaluations [B] of energy and gradient, converged [B]: the projected gradient vanished."""

    x: Tensor
    value: Tensor
    evaluations: Tensor
    converged: Tensor


class _History:
    """The last pairs (s, y) of all rows, newest last, with sᵀy [B], which is 0 where a row has no pair there."""

    def __init__(self, length: int) -> None:
        self._pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=length)

    def push(self, s: Tensor, y: Tensor) -> None:
        """Remember the pairs [B, n] whose curvature is positive: sᵀy well above rounding."""
        curvature = (s * y).sum(1)
        keep = curvature > 1e-10 * s.norm(dim=1) * y.norm(dim=1)
        if bool(keep.any()):
            self._pairs.append((s, y, torch.where(keep, curvature, 0)))

    def forget(self, rows: Tensor) -> None:
        for _, _, curvature in self._pairs:
            curvature[rows] = 0

    def _seen(self, rows: Tensor, free: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Pairs of some rows on their free variables, and sᵀy [b, 1]; copied only where that takes a part of them."""
        whole, unbound = len(rows) == len(self._pairs[0][2]) if self._pairs else True, bool(free.all())
        seen = []
        for s, y, curvature in self._pairs:
            if not whole:
                s, y, curvature = s[rows], y[rows], curvature[rows]
            if not unbound:
                s, y = s * free, y * free
                curvature = torch.where(curvature > 0, (s * y).sum(1), 0)
            seen.append((s, y, curvature[:, None]))
        return seen

    def direction(self, rows: Tensor, gradient: Tensor, free: Tensor) -> Tensor:
        """-H g on the free variables of each row."""
        q = gradient * free
        pairs = self._seen(rows, free)
        steps: list[tuple[Tensor, Tensor]] = []
        scale = torch.ones(len(rows), 1, dtype=q.dtype, device=q.device)
        for s, y, sy in reversed(pairs):
            rho = torch.where(sy > 0, 1 / torch.where(sy > 0, sy, 1), 0)
            alpha = rho * _dot(s, q)
            q = torch.addcmul(q, alpha, y, value=-1)
            steps.append((alpha, rho))
            # The newest usable pair gives the scale of the first guess of H.
            yy = _dot(y, y)
            scale = torch.where((sy > 0) & (scale == 1) & (yy > 0), sy / torch.where(yy > 0, yy, 1), scale)
        q = q * scale
        for (s, y, _), (alpha, rho) in zip(pairs, reversed(steps)):
            q = torch.addcmul(q, alpha - rho * _dot(y, q), s)
        return -q * free

    def any(self, rows: Tensor) -> Tensor:
        found = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        for _, _, curvature in self._pairs:
            found |= curvature[rows] > 0
        return found


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """[b, n] by [b, n] -> [b, 1]."""
    return torch.linalg.vecdot(a, b)[:, None]


def minimise(
    energy: Energy,
    start: Tensor,
    lower: Tensor,
    upper: Tensor,
    iterations: int = 100,
    memory: int = 7,
    tolerance: float = 1e-6,
    judge: Judge | None = None,
) -> Minimum:
    """Minimise each row of start [B, n] inside [lower, upper] (which broadcast to it).

    A row ends when its projected gradient is below `tolerance` in every variable, when steps lower it by no more than
    rounding, where `judge`, who is asked after every iteration, says so, or after `iterations`. The energies of a row
    never rise, and no point outside the box is ever evaluated.
    """
    lower, upper = lower.expand_as(start), upper.expand_as(start)
    x = start.clamp(lower, upper)
    everyone = torch.arange(len(x), device=x.device)
    value, gradient = energy(x, everyone)
    value, gradient = value.clone(), gradient.clone()
    evaluations = torch.ones(len(x), dtype=torch.int64, device=x.device)
    converged = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    history = _History(memory)
    live = everyone
    for number in range(1, iterations + 1):
        here, slope = x[live], gradient[live]
        outward = (here - slope).clamp(lower[live], upper[live]) - here
        done = outward.abs().amax(1) <= tolerance
        converged[live[done]] = True
        live = live[~done]
        if not len(live):
            break
        live = _iterate(energy, live, x, value, gradient, lower, upper, history, evaluations)
        if judge is not None:
            live = live[judge(number, x, value)[live]]
        if not len(live):
            break
    return Minimum(x, value, evaluations, converged)


def _iterate(
    energy: Energy,
    live: Tensor,
    x: Tensor,
    value: Tensor,
    gradient: Tensor,
    lower: Tensor,
    upper: Tensor,
    history: _History,
    evaluations: Tensor,
) -> Tensor:
    """One step of every live row, in place; returns the rows that may go on."""
    here, slope, low, high = x[live], gradient[live], lower[live], upper[live]
    free = ~(((here <= low) & (slope > 0)) | ((here >= high) & (slope < 0)))
    step = history.direction(live, slope, free)
    uphill = (step * slope).sum(1) >= 0
    step = torch.where(uphill[:, None], -slope * free, step)
    fresh = uphill | ~history.any(live)
    # Without curvature the first step is of length one at most.
    length = torch.where(fresh, (1 / step.norm(dim=1).clamp(min=1e-30)).clamp(max=1.0), 1.0)
    pending = torch.arange(len(live), device=x.device)
    failed = torch.ones(len(live), dtype=torch.bool, device=x.device)
    moves, bends = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(TRIALS):
        rows = live[pending]
        trial = (here[pending] + length[pending, None] * step[pending]).clamp(low[pending], high[pending])
        moved = trial - here[pending]
        fall = (slope[pending] * moved).sum(1)
        tried, tried_slope = energy(trial, rows)
        evaluations[rows] += 1
        accept = torch.isfinite(tried) & (tried <= value[rows] + ARMIJO * fall) & (moved != 0).any(1)
        taken = rows[accept]
        moves[taken], bends[taken] = moved[accept], tried_slope[accept] - slope[pending][accept]
        gained = value[taken] - tried[accept] > ROUNDING * torch.finfo(x.dtype).eps * value[taken].abs()
        x[taken], value[taken], gradient[taken] = trial[accept], tried[accept], tried_slope[accept]
        failed[pending[accept][gained]] = False
        # Minimum of the parabola through both values and the first slope, kept within a tenth and a half.
        bend = 2 * (tried - value[rows] - fall)
        shrink = torch.where(torch.isfinite(bend) & (bend > 0), -fall / bend, 0.1).clamp(0.1, 0.5)
        length[pending] *= shrink
        pending = pending[~accept]
        if not len(pending):
            break
    history.push(moves, bends)
    # A row that found no lower point tries once more without its history; without one it is at its end.
    retry = live[failed & ~fresh]
    history.forget(retry)
    return torch.cat([live[~failed], retry]).sort().values
