"""The settings of inversion: two as published, and one that goes further down the same energy.

The published ones (Mahendran & Vedaldi, CVPR 2015 and IJCV 2016) differ in nearly everything and are kept
apart by name.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dissect.errors import SpecError
from dissect.inversion import draws
from dissect.inversion.constraints import PixelBall
from dissect.inversion.images import Pixels, Spectrum
from dissect.inversion.network import Network
from dissect.inversion.objectives import At, Caricature, CodeError
from dissect.inversion.optimisers import Adam, Forgetful, Momentum
from dissect.inversion.priors import AlphaNorm, AlphaSum, Natural, Prior, TotalVariation, VariationSum
from dissect.inversion.task import Mend, Phase, Stage, Task
from dissect.inversion.transforms import Centre, Window

SETTINGS = ("ijcv16", "cvpr15", "spectrum")
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

# Ours: the descent over the spectrum. Steps while the objective gains weight and after; first and last rate; faintness
# of the start; noise of a step, in rates; rounds of L-BFGS at the end, at most.
SPECTRUM_STEPS = 2100, 900
SPECTRUM_RATES = 0.4, 0.004
FAINT = 0.01
NOISE = 0.5
FINISH = 50

# What follows where a place of the code sees few pixels: further descents and hops, steps and rates of a hop, and
# iterations of L-BFGS after it.
FEW = 5  # pixels from place to place
AGAIN, HOPS = 5, 20
HOP_STEPS = 300
HOP_RATES = 0.2, 0.004
SEAMS = 60

# The descent by stages, where the code keeps no places. STARTS of every sample go through CLIMB stages of two rounds
# each, in which the weight of the code grows from RISE of C by equal ratios, with ReLUs as soft as SOFT; half of them
# are left after each of HALVED. Then the ReLUs sharpen: softness and rounds, at most, of each stage.
STARTS = 8
CLIMB, CLIMB_ROUNDS = 12, 2
RISE = 0.001
SOFT = 1.0
HALVED = 6, 8, 10
SHARPEN = (1.0, 40), (0.7, 10), (0.5, 10), (0.3, 10), (0.2, 10), (0.1, 16), (0.05, 8), (0.02, 4)

Priors = tuple[tuple[float, Prior], ...]


@dataclass(frozen=True)
class Recipe:
    """How to invert. `weight` is IJCV's C; `variation` CVPR's lambda of TV (None: 1, 10 or 100 by depth).

    `setting`: `ijcv16` and `cvpr15` as published; `spectrum` minimises the energy of ijcv16 over the picture's
    spectrum, from a faint start, with Adam, while C grows to its value and noise dies away, ends with L-BFGS, and frees
    what was caught place by place where a layer sees few pixels at each (see `mend`); where the code keeps no places it
    goes by stages over rounded ReLUs (see `graduate`). A lower energy where pooling or depth is a trap, for some twenty
    to fifty times the steps.
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
            raise SpecError(f"setting {self.setting!r} is unknown: expected one of {', '.join(SETTINGS)}")
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
            raise SpecError(f"a caricature is defined by the ijcv16 setting: leave out --setting {self.setting}")

    def steps(self, full: int) -> int:
        return max(1, round(full / self.shorter))


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


def typical(originals: Tensor, recipe: Recipe) -> tuple[float, float]:
    """B and V: length and gradient of a typical pixel. Measured, each prior is 1 on average over z [N, C, h, w]."""
    if recipe.typical == "published":
        return B, B / B_OVER_V
    length = float(AlphaNorm(ALPHA, 1.0)(originals.double()).mean()) ** (1 / ALPHA)
    gradient = float(TotalVariation(BETA, 1.0)(originals.double()).mean()) ** (1 / BETA)
    if not length or not gradient:
        raise SpecError("B and V cannot be measured on images of one even colour: leave out --typical measured")
    return length, gradient


def plan(
    network: Network,
    layer: str,
    recipe: Recipe,
    codes: Tensor,
    seeds: np.ndarray,
    scale: tuple[float, float],
    first: Tensor | None = None,
) -> Task:
    """The task of inverting `codes` [B, ...]. scale: B and V of `typical`; first: where a caricature starts, z."""
    mask = part_mask(network.shape(layer), recipe.part)
    mask = None if mask is None else mask.to(codes.device)
    if recipe.setting == "cvpr15":
        return _cvpr15(network, layer, recipe, CodeError(codes, 1.0, mask), seeds)
    priors: Priors = ((1.0, Natural(ALPHA, scale[0], BETA, scale[1])),)
    score = Caricature(codes, recipe.weight) if recipe.caricature else CodeError(codes, recipe.weight, mask)
    objective = At(network, layer, score)
    if recipe.setting == "spectrum":
        descend = _staged if _placeless(network, layer) else _spectrum
        return descend(network, recipe, objective, seeds, scale[0], priors)
    return _ijcv16(network, recipe, objective, seeds, scale[0], priors, first)


def starts(network: Network, layer: str, recipe: Recipe) -> int:
    """How many pictures are sought at once for every one that is asked for."""
    return recipe.steps(STARTS) if recipe.setting == "spectrum" and _placeless(network, layer) else 1


def _placeless(network: Network, layer: str) -> bool:
    return math.prod(network.shape(layer)[1:]) == 1


def _ijcv16(
    network: Network, recipe: Recipe, objective: At, seeds: np.ndarray, b: float, priors: Priors, first: Tensor | None
) -> Task:
    height, width = network.size
    jitter = max(1, round(network.stride(objective.layer) / 4))
    tall, wide = height + jitter - 1, width + jitter - 1
    if first is None:
        noise = draws.uniform(seeds, (network.pixels.planes, tall, wide))
        quantile = torch.quantile(noise.abs().flatten(1)[:, :1_000_000], 0.95, dim=1).view(-1, 1, 1, 1)
        start = noise / quantile * (b / math.sqrt(3))
    else:
        margin = (jitter - 1) // 2
        edges = (margin, jitter - 1 - margin) * 2
        start = nn.functional.pad(first, edges, mode="replicate")
    rate = tall * wide * 0.05 * b**2 / ALPHA
    ball = (PixelBall(2 * b),)
    return Task(
        objective,
        Pixels(start.to(network.device, network.dtype)),
        (
            Phase(recipe.steps(300), rate, transforms=(Window(height, width),), constraints=ball),
            Phase(max(0, recipe.settle - 50), rate, transforms=(Centre(height, width),), constraints=ball),
            Phase(recipe.steps(50), rate / 10, transforms=(Centre(height, width),), constraints=ball),
        ),
        Forgetful(),
        seeds,
        priors,
    )


def _spectrum(network: Network, recipe: Recipe, objective: At, seeds: np.ndarray, b: float, priors: Priors) -> Task:
    """Every frequency moves with the energy that photos give it, and the code is asked for ever more strictly: the
    coarse picture, which decides what a pooling passes on and which units live, is settled before the fine one can be
    trapped. The noise frees it from shallow traps, as annealing does: C is the inverse of its temperature."""
    image = Spectrum(network.pixels.planes, *network.size, b, FAINT, network.device, network.dtype)
    # Where a place of the map sees few pixels there is much to lose by being smooth too long; deep, by being rough.
    rise = min(0.1, max(0.001, 1.6 / network.stride(objective.layer) ** 2))
    first, last = SPECTRUM_RATES
    rising, steady = map(recipe.steps, SPECTRUM_STEPS)
    between = first * (last / first) ** (rising / (rising + steady))
    phases = (
        Phase(rising, first, between, ratios=True, rise=rise, noise=NOISE),
        Phase(steady, between, last, ratios=True, noise=NOISE),
    )
    mend = None
    if network.stride(objective.layer) <= FEW:
        hop = Phase(recipe.steps(HOP_STEPS), *HOP_RATES, ratios=True, noise=NOISE)
        mend = Mend(recipe.steps(AGAIN), recipe.steps(HOPS), hop, SEAMS, network.stride(objective.layer) / 2)
    return Task(objective, image, phases, Adam(0.9, 0.99), seeds, priors, recipe.steps(FINISH), mend)


def _staged(network: Network, recipe: Recipe, objective: At, seeds: np.ndarray, b: float, priors: Priors) -> Task:
    """Where the code keeps no places nothing tells which part of a picture is wrong, so chance decides where steps with
    noise freeze; the valleys of the rounded energy are few (see `graduate`)."""
    image = Spectrum(network.pixels.planes, *network.size, b, FAINT, network.device, network.dtype)
    count = starts(network, objective.layer, recipe)
    stages = []
    for number in range(1, CLIMB + 1):
        share = RISE ** ((CLIMB - number) / (CLIMB - 1))
        keep = max(1, count // 2 ** sum(number >= halved for halved in HALVED))
        stages.append(Stage(recipe.steps(CLIMB_ROUNDS), share, SOFT, keep))
    stages += [Stage(recipe.steps(rounds), softness=softness) for softness, rounds in SHARPEN]
    return Task(objective, image, (), Adam(), seeds, priors, recipe.steps(FINISH), None, tuple(stages), count)


def _cvpr15(network: Network, layer: str, recipe: Recipe, score: CodeError, seeds: np.ndarray) -> Task:
    height, width = network.size
    sigma = SIGMA_227 * math.sqrt(height * width * network.pixels.planes / (227 * 227 * 3))
    noise = draws.normal(seeds, (network.pixels.planes, height, width))
    # Normalised image by image; the shipped code shared one norm among all the restarts.
    start = noise * (sigma / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
    depth = (network.layers.index(layer) + 1) / len(network.layers)
    by_depth = 1.0 if depth <= 0.3 else 10.0 if depth <= 0.6 else 100.0
    variation = by_depth if recipe.variation is None else recipe.variation
    # The rate is in units of sigma^2, as every term of the energy is in units of a squared norm.
    rate = 0.004 * sigma**2
    return Task(
        At(network, layer, score),
        Pixels(start.to(network.device, network.dtype)),
        (
            Phase(recipe.steps(100), rate),
            Phase(recipe.steps(200), rate / 10, reset=True),
            Phase(recipe.steps(100), rate / 100, reset=True),
        ),
        Momentum(0.9),
        seeds,
        ((variation / sigma**2, VariationSum(2.0)), (LAMBDA_ALPHA / sigma**2, AlphaSum(6.0))),
    )
