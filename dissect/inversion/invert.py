"""Inversion: what picture has this code? (Mahendran & Vedaldi, CVPR 2015 and IJCV 2016.)

The two published settings differ in nearly everything and are kept apart by name, and so are their two measures of
error. All restarts of all images go through the network in one batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dissect.errors import SpecError
from dissect.inversion import draws
from dissect.inversion.constraints import PixelBall
from dissect.inversion.engine import Phase, Task, Watcher, batches, joined, run
from dissect.inversion.images import Pixels
from dissect.inversion.network import OUTPUT, Network
from dissect.inversion.objectives import At, Caricature, CodeError
from dissect.inversion.optimisers import Forgetful, Momentum
from dissect.inversion.priors import AlphaNorm, AlphaSum, TotalVariation, VariationSum
from dissect.inversion.transforms import Centre, Window, centre

SETTINGS = ("ijcv16", "cvpr15")
PARTS = ("all", "centre", "first-half", "second-half")

TYPICAL = ("published", "measured")

# IJCV 2016, as shipped: the length of a typical pixel, and the ratio of that to a typical gradient.
B = 80.0
B_OVER_V = 6.5
ALPHA = 6.0
BETA = 2.0

# CVPR 2015, as shipped: norm of a mean-subtracted image of 227 x 227 pixels in bytes.
SIGMA_227 = 27098.1
LAMBDA_ALPHA = 8e-10


@dataclass(frozen=True)
class Recipe:
    """How to invert. `weight` is IJCV's C; `variation` CVPR's lambda of TV (None: 1, 10 or 100 by depth).

    `typical`: B and V as `published`, for photos of about 224 pixels, or `measured` on the originals, so that both
    priors are 1 on them whatever their size and subject. `settle` steps without jitter end it (published: 50 at a
    tenth of the rate; more of them go at the full rate before those). `shorter` divides the published numbers of
    steps, for a quick look. `part` names what of the code must be met.
    """

    setting: str = "ijcv16"
    weight: float = 100.0
    variation: float | None = None
    restarts: int = 1
    part: str = "all"
    caricature: bool = False
    typical: str = "published"
    settle: int = 50
    shorter: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.setting not in SETTINGS:
            raise SpecError(f"setting {self.setting!r} is unknown: expected {' or '.join(SETTINGS)}")
        if self.part not in PARTS:
            raise SpecError(f"part {self.part!r} is unknown: expected one of {', '.join(PARTS)}")
        if self.typical not in TYPICAL:
            raise SpecError(f"typical {self.typical!r} is unknown: expected {' or '.join(TYPICAL)}")
        if self.settle < 50:
            raise SpecError(f"settle {self.settle} is below the published 50 steps")
        if self.restarts < 1 or self.weight <= 0 or self.shorter <= 0:
            raise SpecError(
                "expected restarts >= 1, weight > 0 and shorter > 0, "
                f"found {self.restarts}, {self.weight} and {self.shorter}"
            )
        if self.caricature and self.setting != "ijcv16":
            raise SpecError("a caricature is defined by the ijcv16 setting: leave out --setting cvpr15")


@dataclass
class Inversion:
    """One layer. images z [N, R, C, h, w]; errors [N, R] as ratios of norms (IJCV'16 convention).

    spread [N]: mean distance between restarts over the norm of the original. pairwise: mean squared distance over all
    pairs of the N codes, diagonal included, by which CVPR'15 divides; None for one image.
    """

    layer: str
    images: Tensor
    feature_error: np.ndarray
    image_error: np.ndarray
    squared_error: np.ndarray
    spread: np.ndarray
    pairwise: float | None
    energy: np.ndarray
    stopped: list[str | None]
    seconds: float
    steps: int
    parts: dict[str, object]

    def summary(self) -> dict[str, Any]:
        """Both conventions, each under its name; the half-widths are 1.96 standard errors over the images."""
        best = self.feature_error.argmin(1)
        rows = np.arange(len(best))
        return {
            "layer": self.layer,
            "feature_error": _mean(self.feature_error),
            "feature_error_se196": _half_width(self.feature_error),
            "image_error": _mean(self.image_error),
            "image_error_se196": _half_width(self.image_error),
            "feature_error_squared": _mean(self.feature_error**2),
            "feature_error_best": float(self.feature_error[rows, best].mean()),
            "cvpr15_error": None if not self.pairwise else float(np.nanmean(self.squared_error) / self.pairwise),
            "restart_spread": None if self.images.shape[1] < 2 else _mean(self.spread),
            "worst_feature_error": float(np.nanmax(self.feature_error)),
            "stopped": sum(reason is not None for reason in self.stopped),
            "steps": self.steps,
            "seconds": self.seconds,
        }


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values))


def _half_width(values: np.ndarray) -> float | None:
    images = values.reshape(len(values), -1).mean(1)
    return None if len(images) < 2 else float(1.96 * images.std(ddof=1) / math.sqrt(len(images)))


def blocks(network: Network) -> list[str]:
    """The layers of a depth sheet: the blocks two names deep, or single layers nearer to the root, by execution."""
    named = dict(network.module.named_modules())
    chosen = []
    for name in network.layers:
        depth = name.count(".")
        module = named.get(name)
        if name == OUTPUT and module is None:
            continue
        if module is None or isinstance(module, nn.Dropout | nn.Identity | nn.Flatten):
            continue
        nested = any(True for _ in module.children())
        if depth == 1 or (depth == 0 and not nested):
            chosen.append(name)
    return chosen or [OUTPUT]


def leaves(network: Network) -> list[str]:
    """Every layer without layers inside."""
    named = dict(network.module.named_modules())
    skip = (nn.Dropout, nn.Identity, nn.Flatten)
    return [
        name
        for name in network.layers
        if name in named and not any(True for _ in named[name].children()) and not isinstance(named[name], skip)
    ]


def part_mask(shape: tuple[int, ...], part: str) -> Tensor | None:
    """0/1 over one code: the central 5 x 5 places (neighbourhood mode) or half of the units (group mode)."""
    if part == "all":
        return None
    mask = torch.zeros(shape)
    if part == "centre":
        if len(shape) != 3:
            raise SpecError(f"part 'centre' needs a layer with maps, found a code of shape {list(shape)}")
        top, left = max(0, (shape[1] - 5) // 2), max(0, (shape[2] - 5) // 2)
        mask[:, top : top + 5, left : left + 5] = 1
    elif part == "first-half":
        mask[: shape[0] // 2] = 1
    else:
        mask[shape[0] // 2 :] = 1
    return mask


def _relative_depth(network: Network, layer: str) -> float:
    order = network.layers
    return (order.index(layer) + 1) / len(order)


def typical(originals: Tensor, recipe: Recipe) -> tuple[float, float]:
    """B and V: length and gradient of a typical pixel. Measured, each prior is 1 on average over z [N, C, h, w]."""
    if recipe.typical == "published":
        return B, B / B_OVER_V
    length = float(AlphaNorm(ALPHA, 1.0)(originals.double()).mean()) ** (1 / ALPHA)
    gradient = float(TotalVariation(BETA, 1.0)(originals.double()).mean()) ** (1 / BETA)
    if not length or not gradient:
        raise SpecError("B and V cannot be measured on images of one even colour: leave out --typical measured")
    return length, gradient


def _ijcv16(
    network: Network,
    layer: str,
    recipe: Recipe,
    scale: tuple[float, float],
    target: Tensor,
    seeds: np.ndarray,
    first: Tensor | None = None,
) -> Task:
    """scale: B and V; first: where a caricature starts, z of each sample."""
    b, v = scale
    height, width = network.size
    jitter = max(1, round(network.stride(layer) / 4))
    tall, wide = height + jitter - 1, width + jitter - 1
    if first is None:
        noise = draws.uniform(seeds, (network.pixels.planes, tall, wide))
        quantile = torch.quantile(noise.abs().flatten(1)[:, :1_000_000], 0.95, dim=1).view(-1, 1, 1, 1)
        start = noise / quantile * (b / math.sqrt(3))
    else:
        margin = (jitter - 1) // 2
        edges = (margin, jitter - 1 - margin) * 2
        start = nn.functional.pad(first, edges, mode="replicate")
    mask = part_mask(network.shape(layer), recipe.part)
    mask = None if mask is None else mask.to(target.device)
    score = Caricature(target, recipe.weight) if recipe.caricature else CodeError(target, recipe.weight, mask)
    rate = tall * wide * 0.05 * b**2 / ALPHA
    ball = (PixelBall(2 * b),)
    return Task(
        At(network, layer, score),
        Pixels(start.to(target.device)),
        (
            Phase(max(1, round(300 / recipe.shorter)), rate, transforms=(Window(height, width),), constraints=ball),
            Phase(max(0, recipe.settle - 50), rate, transforms=(Centre(height, width),), constraints=ball),
            Phase(max(1, round(50 / recipe.shorter)), rate / 10, transforms=(Centre(height, width),), constraints=ball),
        ),
        Forgetful(),
        seeds,
        ((1.0, AlphaNorm(ALPHA, b)), (1.0, TotalVariation(BETA, v))),
    )


def _cvpr15(network: Network, layer: str, recipe: Recipe, target: Tensor, seeds: np.ndarray) -> Task:
    height, width = network.size
    sigma = SIGMA_227 * math.sqrt(height * width * network.pixels.planes / (227 * 227 * 3))
    noise = draws.normal(seeds, (network.pixels.planes, height, width))
    # Normalised image by image; the shipped code shared one norm among all the restarts.
    start = noise * (sigma / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
    depth = _relative_depth(network, layer)
    variation = (
        recipe.variation if recipe.variation is not None else (1.0 if depth <= 0.3 else 10.0 if depth <= 0.6 else 100.0)
    )
    mask = part_mask(network.shape(layer), recipe.part)
    mask = None if mask is None else mask.to(target.device)
    # The rate is in units of sigma^2, as every term of the energy is in units of a squared norm.
    rate = 0.004 * sigma**2
    return Task(
        At(network, layer, CodeError(target, 1.0, mask)),
        Pixels(start.to(target.device)),
        (
            Phase(max(1, round(100 / recipe.shorter)), rate),
            Phase(max(1, round(200 / recipe.shorter)), rate / 10, reset=True),
            Phase(max(1, round(100 / recipe.shorter)), rate / 100, reset=True),
        ),
        Momentum(0.9),
        seeds,
        ((variation / sigma**2, VariationSum(2.0)), (LAMBDA_ALPHA / sigma**2, AlphaSum(6.0))),
    )


def _norms(z: Tensor) -> Tensor:
    return z.double().flatten(1).norm(dim=1)


def pairwise_distance(codes: Tensor) -> float | None:
    """Mean squared distance over all ordered pairs of N codes, the N zeros of the diagonal included (CVPR'15)."""
    rows = codes.double().flatten(1)
    if len(rows) < 2:
        return None
    # mean_ij |a_i - a_j|^2 = 2 (mean |a|^2 - |mean a|^2), measured about the mean for accuracy.
    centred = rows - rows.mean(0)
    return float(2 * centred.square().sum(1).mean())


def invert(
    network: Network,
    originals: Tensor,
    layer: str,
    recipe: Recipe,
    state_file: Path | None = None,
    identity: object = None,
    watch: Watcher | None = None,
    batch: int = 32,
) -> Inversion:
    """Invert the codes of `originals` z [N, C, h, w] at one layer, recipe.restarts times each, `batch` at once."""
    if tuple(originals.shape[2:]) != network.size:
        raise SpecError(f"images are {list(originals.shape[2:])}, {network.name} was set up for {list(network.size)}")
    originals = originals.to(network.device, network.dtype)
    codes = network.codes(originals, layer)
    repeated = codes.repeat_interleave(recipe.restarts, 0)
    seeds = draws.seeds(recipe.seed, len(repeated))
    scale = typical(originals, recipe)
    outcomes = []
    for part, file in batches(len(repeated), batch, state_file):
        if recipe.setting == "cvpr15":
            task = _cvpr15(network, layer, recipe, repeated[part], seeds[part])
        else:
            first = originals.repeat_interleave(recipe.restarts, 0)[part] if recipe.caricature else None
            task = _ijcv16(network, layer, recipe, scale, repeated[part], seeds[part], first)
        outcomes.append(run(task, file, [identity, layer, repr(recipe), part.start], watch=watch))
    outcome = joined(outcomes)
    images = centre(outcome.images, *network.size)
    found = network.codes(images, layer)
    difference = _norms(found - repeated)
    several = (len(originals), recipe.restarts)
    grid = images.unflatten(0, several)
    return Inversion(
        layer,
        grid.cpu(),
        (difference / _norms(repeated)).view(several).cpu().numpy(),
        (_norms(images - originals.repeat_interleave(recipe.restarts, 0)).view(several) / _norms(originals)[:, None])
        .cpu()
        .numpy(),
        difference.square().view(several).cpu().numpy(),
        (restart_distance(grid) / _norms(originals)).cpu().numpy(),
        pairwise_distance(codes),
        outcome.total,
        outcome.stopped,
        outcome.seconds,
        len(outcome.total),
        outcome.parts,
    )


def restart_distance(images: Tensor) -> Tensor:
    """Mean distance between the R restarts of each image, [N, R, ...] -> [N]; 0 for one restart."""
    rows = images.double().flatten(2)
    distance = torch.cdist(rows, rows)
    count = rows.shape[1]
    return distance.sum((1, 2)) / max(1, count * (count - 1))


def rank_correlation(values: Sequence[float]) -> float:
    """Spearman's correlation of a sequence with its own order; ties share their mean rank."""
    array = np.asarray(values, dtype=np.float64)
    order = np.argsort(array, kind="stable")
    ranks = np.empty(len(array))
    ranks[order] = np.arange(len(array))
    for value in np.unique(array):
        ranks[array == value] = ranks[array == value].mean()
    place = np.arange(len(array), dtype=np.float64)
    ranks, place = ranks - ranks.mean(), place - place.mean()
    length = math.sqrt(float((ranks**2).sum() * (place**2).sum()))
    return float((ranks * place).sum() / length) if length else float("nan")
