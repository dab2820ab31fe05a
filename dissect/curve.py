"""Unique detectors against the rotation of a layer: the curve of Bau et al. (CVPR 2017, figure 3; PNAS 2020).

A run without rotation, runs along Q^alpha for several random rotations Q, and beside them random directions and
untrained copies. Each is a run like any other; those that are finished already are taken from the workspace.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dissect.errors import SpecError
from dissect.request import RunRequest
from dissect.running import run_dissection
from dissect.untrained import untrained
from dissect.workspace import Workspace

ALPHAS = (0.2, 0.4, 0.6, 0.8, 1.0)
SEEDS = 3
ROTATION, RANDOM, UNTRAINED = "rotation", "random directions", "untrained copy"


@dataclass(frozen=True)
class Point:
    """One run of the curve. alpha is None for runs that are no rotation, seed is None for the layer as it is."""

    series: str
    alpha: float | None
    seed: int | None
    run: str
    units: int
    detectors: int
    unique_detectors: int
    unique_concepts: int

    def json(self) -> dict[str, Any]:
        return dict(vars(self))


COLUMNS = ("series", "alpha", "seed", "units", "detectors", "unique_detectors", "unique_concepts", "run")


def requests(
    request: RunRequest, alphas: Sequence[float], seeds: int
) -> list[tuple[str, float | None, int | None, RunRequest]]:
    """Series, alpha, seed and request of every run; the one without rotation first.

    Raises SpecError for alphas outside 0..1, no seed, several layers, or a request that already has a basis.
    """
    if len(request.layers) != 1:
        raise SpecError(f"a curve is drawn for one layer, {len(request.layers)} are given")
    if request.basis:
        raise SpecError("a curve chooses its own bases: leave --basis out")
    if seeds < 1:
        raise SpecError(f"--seeds is {seeds}: expected at least 1")
    bad = [alpha for alpha in alphas if not 0 <= alpha <= 1]
    if bad:
        raise SpecError(f"alpha {bad[0]:g} is outside 0 (the units as they are) to 1 (the whole rotation)")
    own = replace(request, name=None, report=False)
    found: list[tuple[str, float | None, int | None, RunRequest]] = [(ROTATION, 0.0, None, own)]
    for alpha in sorted({alpha for alpha in alphas if alpha > 0}):
        for seed in range(seeds):
            found.append((ROTATION, alpha, seed, replace(own, basis=f"rotate:seed={seed},alpha={alpha!r}")))
    for seed in range(seeds):
        found.append((RANDOM, None, seed, replace(own, basis=f"random:seed={seed}")))
    for seed in range(seeds):
        found.append((UNTRAINED, None, seed, untrained(own, seed)))
    return found


def draw(
    workspace: Workspace,
    request: RunRequest,
    alphas: Sequence[float] = ALPHAS,
    seeds: int = SEEDS,
    announce: Callable[[str], None] = lambda line: None,
) -> list[Point]:
    """Do what has not been done yet, and say what every run found. Raises as `run_dissection` does."""
    points = []
    wanted = requests(request, alphas, seeds)
    for number, (series, alpha, seed, asked) in enumerate(wanted, 1):
        words = [series] + [
            f"{name} {value:g}" for name, value in (("alpha", alpha), ("seed", seed)) if value is not None
        ]
        outcome = run_dissection(workspace, asked)
        facts = outcome.layers[request.layers[0]]
        announce(
            f"{number} of {len(wanted)}: {', '.join(words)}: {facts['unique_detectors']} unique detectors"
            + ("" if outcome.fresh else "  (was finished already)")
        )
        points.append(Point(series, alpha, seed, outcome.run.id, **facts))
    return points
