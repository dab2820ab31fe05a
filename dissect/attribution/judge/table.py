"""The table of methods: every score for every method, and always the four rows that know nothing or everything."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dissect.attribution.gradients import scores
from dissect.attribution.judge.curves import deletion, insertion
from dissect.attribution.judge.masks import TOLERANCE, energy, pointing
from dissect.attribution.judge.randomisation import Mapper
from dissect.attribution.network import Network
from dissect.attribution.targets import Target
from dissect.errors import SpecError

BASELINES = ("constant", "random", "centre", "ground truth")


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
    tolerance: float = TOLERANCE,
    curves: bool = True,
    step: int | None = None,
    seed: int = 0,
    smooth: Callable[[Tensor], Tensor] | None = None,
) -> Judgement:
    """Pointing, energy in the mask, deletion and insertion of every method and of the four baselines.

    Methods map (network, x [1, C, h, w], target) to [1, h, w]. curves: forward passes by the hundred for each map.
    smooth: applied to the methods' maps before pointing (TorchRay smooths gradients), never to the baselines.
    Pointing takes the map as it is: a signed method is judged by its most positive place.
    """
    clash = set(methods) & set(BASELINES)
    if clash:
        raise SpecError(f"method {sorted(clash)[0]!r} has the name of a baseline")
    rows = {name: Row(name, name in BASELINES) for name in (*methods, *BASELINES)}
    count = 0
    for number, item in enumerate(items):
        x = network.prepare(item.image[None])
        mask = torch.from_numpy(np.ascontiguousarray(item.mask)).to(torch.bool)
        probability = _as_probability(item.target)
        for name, row in rows.items():
            heat = (
                methods[name](network, x, item.target)[0].detach().cpu()
                if name in methods
                else baseline_map(name, mask, seed + number)
            )
            if smooth is not None and name in methods:
                heat = smooth(heat)
            row.each.setdefault("pointing", []).append(pointing(heat, mask, tolerance))
            row.each.setdefault("energy", []).append(energy(heat, mask))
            if curves:
                row.each.setdefault("deletion", []).append(
                    deletion(network, x, heat, probability, step, seed=seed).area
                )
                row.each.setdefault("insertion", []).append(
                    insertion(network, x, heat, probability, step, seed=seed).area
                )
        count += 1
    if not count:
        raise SpecError("nothing to judge: there is no item")
    settings = {"tolerance": tolerance, "step": step or "one image row", "seed": seed, "smooth": smooth is not None}
    return Judgement(tuple(rows.values()), count, settings)


def _as_probability(target: Target) -> Target:
    """Deletion and insertion watch the class probability; other targets are watched as they are."""
    from dataclasses import replace

    from dissect.attribution.network import OUTPUT

    return replace(target, probability=True) if target.layer == OUTPUT else target


def contrast_targets(network: Network, x: Tensor, first: Target, others: Sequence[Target]) -> tuple[Target, Target]:
    """The target and its strongest rival on x [1, C, h, w]: the harder pair for class contrast."""
    rivals = [(float(scores(network, x, target)[0]), i) for i, target in enumerate(others) if target != first]
    if not rivals:
        raise SpecError("class contrast needs a second target")
    return first, others[max(rivals)[1]]
