"""The scores of a judging table, each a function of one question and one map.

Every score takes what it needs from `Answer`; a new one is a function and a line in SCORES.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from dissect.attribution.judge import curves
from dissect.attribution.judge.masks import TOLERANCE, energy, pointing
from dissect.attribution.judge.randomisation import Mapper, cascading_randomisation, class_contrast
from dissect.attribution.judge.sensitivity_n import sensitivity_n
from dissect.attribution.network import OUTPUT, Network
from dissect.attribution.occlusion.occluders import gaussian_blur
from dissect.attribution.targets import Target
from dissect.errors import SpecError
from dissect.suggest import suggestion


@dataclass(frozen=True)
class Settings:
    """What the scores depend on beside the map.

    tolerance: of pointing, pixels. smooth: deviation of the blur before pointing as a share of the shorter side
    (published for gradients: 0.02), never on baselines. step: pixels that deletion and insertion change at a time, one
    image row unless given. subset, cell, draws: share of the cells, their side in pixels and random sets of
    sensitivity-n. stages: how many maps a cascade of randomised layers takes.
    """

    tolerance: float = TOLERANCE
    smooth: float = 0.0
    step: int | None = None
    subset: float = 0.1
    cell: int = 16
    draws: int = 64
    stages: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """A map [H, W] that a method gave to a question: image x [1, C, H, W], target, mask of the right place if known.

    rival: the strongest other target of the same layer; mapper: the method itself, for scores that ask it again.
    """

    network: Network
    x: Tensor
    target: Target
    heat: Tensor
    mapper: Mapper
    settings: Settings
    mask: Tensor | None = None
    rival: Target | None = None


def _pointing(a: Answer) -> float:
    heat = a.heat
    if a.settings.smooth:
        heat = gaussian_blur(heat[None, None], a.settings.smooth * min(heat.shape))[0, 0]
    return pointing(heat, _mask(a), a.settings.tolerance)


def _energy(a: Answer) -> float:
    return energy(a.heat, _mask(a))


def _deletion(a: Answer) -> float:
    return curves.deletion(a.network, a.x, a.heat, probability_of(a.target), a.settings.step, seed=a.settings.seed).area


def _insertion(a: Answer) -> float:
    return curves.insertion(
        a.network, a.x, a.heat, probability_of(a.target), a.settings.step, seed=a.settings.seed
    ).area


def _sensitivity(a: Answer) -> float:
    s = a.settings
    cells = -(-a.heat.shape[0] // s.cell) * -(-a.heat.shape[1] // s.cell)
    n = max(1, round(cells * s.subset))
    (found,) = sensitivity_n(a.network, a.x, a.heat, a.target, [n], s.draws, s.cell, s.seed)
    return found


def _randomisation(a: Answer) -> float:
    stages = cascading_randomisation(a.network, a.x, a.target, a.mapper, a.settings.seed, maps=a.settings.stages)
    return sum(abs(stage.absolute) for stage in stages) / len(stages)


def _contrast(a: Answer) -> float:
    if a.rival is None:
        raise SpecError(f"class contrast needs a second target beside {a.target.title}")
    return class_contrast(a.network, a.x, (a.target, a.rival), a.mapper)


def _mask(a: Answer) -> Tensor:
    if a.mask is None:
        raise SpecError("pointing and energy need a mask of the right place")
    return a.mask


SCORES: dict[str, Callable[[Answer], float]] = {
    "pointing": _pointing,
    "energy": _energy,
    "deletion": _deletion,
    "insertion": _insertion,
    "sensitivity-n": _sensitivity,
    "randomisation": _randomisation,
    "class contrast": _contrast,
}
MEANING = {
    "pointing": "share of maps whose highest place is right, within the tolerance; high is good",
    "energy": "share of the positive part of the map that lies in the mask; high is good",
    "deletion": "area under the score while the highest places are taken away; low is good",
    "insertion": "area under the score while the highest places are put back; high is good",
    "sensitivity-n": "correlation of the map's sum over random cells with the drop of the score without them; high is "
    "good",
    "randomisation": "rank correlation of magnitudes with the map of a network whose layers are shuffled from the top "
    "down; low is good",
    "class contrast": "cosine between the maps of the target and its strongest rival; low is good",
}
MASKED = ("pointing", "energy")  # need a mask


def find_scores(names: Sequence[str]) -> tuple[str, ...]:
    """Names of scores, checked. Raises SpecError."""
    for name in names or ("",):
        if name not in SCORES:
            raise SpecError(f"score {name!r} is unknown{suggestion(name, tuple(SCORES))}")
    return tuple(names)


def probability_of(target: Target) -> Target:
    """Deletion and insertion watch the class probability; other targets are watched as they are."""
    return replace(target, probability=True) if target.layer == OUTPUT else target
