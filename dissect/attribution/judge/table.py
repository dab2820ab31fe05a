"""The table of methods: every score for every method, and always the four rows that know nothing or everything."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dissect.attribution.judge.randomisation import Mapper
from dissect.attribution.judge.scores import SCORES, Answer, Settings, find_scores
from dissect.attribution.network import OUTPUT, Network
from dissect.attribution.targets import Target, class_target
from dissect.errors import SpecError

BASELINES = ("constant", "random", "centre", "ground truth")
FAST = ("pointing", "energy", "deletion", "insertion")  # the scores that need one map


@dataclass(frozen=True)
class Item:
    """One question: an 8-bit image [h, w, C], the mask bool [h, w] of the right place, and the target."""

    image: np.ndarray
    mask: np.ndarray
    target: Target
    name: str = ""


@dataclass
class Row:
    """Means over the items; `each` keeps the values, so that any mean can be recomputed."""

    method: str
    baseline: bool
    each: dict[str, list[float]] = field(default_factory=dict)

    def mean(self, score: str) -> float:
        """Mean of a score over the items, NaN where it was not taken."""
        values = self.each.get(score, [])
        return sum(values) / len(values) if values else math.nan

    def error(self, score: str) -> float:
        """Standard error of that mean."""
        values = self.each.get(score, [])
        if len(values) < 2:
            return math.nan
        mean = self.mean(score)
        return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))


@dataclass(frozen=True)
class Judgement:
    """Rows of all methods and baselines over one set of items, with the settings that they depend on."""

    rows: tuple[Row, ...]
    items: int
    settings: dict[str, Any]

    def row(self, method: str) -> Row:
        """The row of a method. Raises SpecError."""
        for row in self.rows:
            if row.method == method:
                return row
        raise SpecError(f"no row {method!r}: there are {', '.join(row.method for row in self.rows)}")

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "items": self.items,
            "settings": self.settings,
            "rows": [
                {"method": r.method, "baseline": r.baseline, **{s: r.mean(s) for s in r.each}, "each": r.each}
                for r in self.rows
            ],
        }

    def text(self) -> str:
        """A table for people: mean and standard error in per cent."""
        names = list(dict.fromkeys(score for row in self.rows for score in row.each))
        lines = [f"{'method':24s}" + "".join(f"{name:>20s}" for name in names)]
        for row in self.rows:
            cells = "".join(
                f"{100 * row.mean(n):12.1f} ± {100 * row.error(n):4.1f} " if row.each.get(n) else f"{'-':>20s}"
                for n in names
            )
            lines.append(f"{row.method:24s}" + cells)
        return "\n".join(lines)


def baseline_map(name: str, mask: Tensor, seed: int) -> Tensor:
    """A map [h, w] that has not seen the network: constant, random, highest in the centre, or the mask itself."""
    height, width = mask.shape
    if name == "constant":
        return torch.ones(height, width, dtype=torch.float64)
    if name == "random":
        return torch.rand(height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if name == "centre":
        y = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
        x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
        return torch.exp(-(y[:, None] ** 2 / height**2 + x[None, :] ** 2 / width**2) * 8)
    if name == "ground truth":
        return mask.to(torch.float64)
    raise SpecError(f"baseline {name!r} is unknown: expected {', '.join(BASELINES)}")


def judge(
    network: Network,
    items: Iterable[Item],
    methods: Mapping[str, Mapper],
    scores: Sequence[str] = FAST,
    settings: Settings | None = None,
    rivals: Sequence[Target] | None = None,
    watch: Callable[[int], None] = lambda done: None,
) -> Judgement:
    """Every score of every method and of the four baselines over the items.

    Methods map (network, x [1, C, h, w], target) to [1, h, w]; baselines are methods that never look at the network.
    rivals: targets of class contrast; all classes of the network unless given. Pointing takes the map as it is: a
    signed method is judged by its most positive place. watch: called after each item.
    Raises SpecError for unknown scores, a method with the name of a baseline, no item at all.
    """
    names = find_scores(tuple(scores))
    settings = settings or Settings()
    clash = set(methods) & set(BASELINES)
    if clash:
        raise SpecError(f"method {sorted(clash)[0]!r} has the name of a baseline")
    rows = {name: Row(name, name in BASELINES) for name in (*methods, *BASELINES)}
    count = 0
    for number, item in enumerate(items):
        x = network.prepare(item.image[None])
        mask = torch.from_numpy(np.ascontiguousarray(item.mask)).to(torch.bool)
        rival = _rival(network, x, item.target, rivals) if "class contrast" in names else None
        for name, row in rows.items():
            mapper = methods[name] if name in methods else _blind(baseline_map(name, mask, settings.seed + number))
            heat = mapper(network, x, item.target)[0].detach().cpu()
            own = settings if name in methods else replace(settings, smooth=0.0)  # a baseline is what it is
            answer = Answer(network, x, item.target, heat, mapper, own, mask, rival)
            for score in names:
                row.each.setdefault(score, []).append(SCORES[score](answer))
        count += 1
        watch(count)
    if not count:
        raise SpecError("nothing to judge: there is no item")
    told = asdict(settings) | {"step": settings.step or "one image row"}
    return Judgement(tuple(rows.values()), count, told)


def _blind(heat: Tensor) -> Mapper:
    """A method that answers one map, whatever it is asked."""
    return lambda network, x, target: heat[None]


def _rival(network: Network, x: Tensor, target: Target, rivals: Sequence[Target] | None) -> Target:
    return rival_class(network, x, target) if rivals is None else contrast_targets(network, x, target, rivals)[1]


def rival_class(network: Network, x: Tensor, target: Target) -> Target:
    """The strongest class on x that is not the target's. Raises SpecError for a target that is no class."""
    if target.layer != OUTPUT:
        raise SpecError(f"class contrast of {target.title}: say which targets are its rivals")
    with torch.no_grad(), network.running():
        output = network.forward(x, OUTPUT)[0]
    rivals = [unit for unit in output[0].flatten().argsort(descending=True).tolist() if unit not in target.units]
    if not rivals:
        raise SpecError("class contrast needs a second target")
    return class_target(rivals[0], target.probability)


def contrast_targets(network: Network, x: Tensor, first: Target, others: Sequence[Target]) -> tuple[Target, Target]:
    """The target and its strongest rival on x [1, C, h, w]: the harder pair for class contrast. One forward pass for
    each layer among the others."""
    rivals = [target for target in others if target.units != first.units or target.layer != first.layer]
    if not rivals:
        raise SpecError("class contrast needs a second target")
    with torch.no_grad(), network.running():
        outputs = {layer: network.forward(x, layer)[0] for layer in {target.layer for target in rivals}}
    strength = [float(target.score(outputs[target.layer])[0]) for target in rivals]
    return first, rivals[max(range(len(rivals)), key=strength.__getitem__)]
