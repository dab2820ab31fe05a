"""Maximum impulses: the picture that a class, a unit or a direction answers most, and whether that means anything.

Recipes are settings of the one engine: Simonyan et al. 2013, Yosinski et al. 2015, inceptionism as `deepdraw` published
it, natural pre-images (Mahendran & Vedaldi 2016), Fourier with decorrelated colour (Olah et al. 2017), and a
compositional pattern (Mordvintsev et al. 2018).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dissect.errors import SpecError
from dissect.inversion import draws
from dissect.inversion.constraints import Blur, Box, Constraint, DropIdle, DropSmall, PixelBall, Shrink
from dissect.inversion.draws import Draws
from dissect.inversion.engine import Outcome, Watcher, batches, joined, run
from dissect.inversion.images import Fourier, Image, Pattern, Pixels
from dissect.inversion.network import OUTPUT, Network
from dissect.inversion.objectives import Along, At, at_place
from dissect.inversion.optimisers import Adam, Forgetful, Normalised
from dissect.inversion.preimages import ALPHA, B_OVER_V, BETA, B
from dissect.inversion.priors import Decay, Natural
from dissect.inversion.relus import LeakyRelus
from dissect.inversion.task import Phase, Task
from dissect.inversion.transforms import Affine, Fit, Pad, Roll, Transform, Window, resize

RECIPES = ("fourier", "inceptionism", "simonyan", "yosinski", "natural", "pattern")

# Yosinski et al. 2015: decay, blur sigma, blur every, percentiles of small norm and of small contribution.
YOSINSKI = ((0.0, 0.5, 4, 50.0, 0.0), (0.3, 0.0, 1, 20.0, 0.0), (0.0001, 1.0, 4, 0.0, 0.0), (0.0, 0.5, 4, 0.0, 90.0))


@dataclass(frozen=True)
class Target:
    """Directions [T, U] in the units of one layer; for class scores before the softmax the layer is `output`."""

    layer: str
    directions: Tensor
    names: tuple[str, ...]
    where: str = "mean"


def classes(network: Network, numbers: Sequence[int]) -> Target:
    """Class scores before the softmax. Raises SpecError for a number out of range."""
    for number in numbers:
        network.check_class(number)
    return Target(
        OUTPUT, F.one_hot(torch.tensor(list(numbers)), network.classes).float(), tuple(f"class {n}" for n in numbers)
    )


def units(network: Network, layer: str, numbers: Sequence[int], where: str = "mean") -> Target:
    """Single units of a layer; `where`: mean, centre or max over the map."""
    for number in numbers:
        network.check_unit(layer, number)
    hot = F.one_hot(torch.tensor(list(numbers)), network.shape(layer)[0]).float()
    return Target(layer, hot, tuple(f"{layer} unit {n}" for n in numbers), where)


def random_directions(network: Network, layer: str, count: int, seed: int, where: str = "mean") -> Target:
    """Gaussian directions of length one: the control of Szegedy et al. for single units."""
    noise = draws.normal(draws.seeds(seed, count), (network.shape(layer)[0],))
    return Target(
        layer, noise / noise.norm(dim=1, keepdim=True), tuple(f"{layer} direction {i}" for i in range(count)), where
    )


# A unit that the start leaves silent has no gradient; lucid redirects it through ReLUs for the first 16 steps.
WAKING_STEPS = 16
WAKING_SLOPE = 0.1


@dataclass(frozen=True)
class Recipe:
    """How to maximise. `decay` is Simonyan's lambda (of no published value); `variant` one of Yosinski's four settings;
    `shorter` divides the steps."""

    name: str = "fourier"
    restarts: int = 1
    decay: float = 0.05
    variant: int = 2
    shorter: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in RECIPES:
            raise SpecError(f"recipe {self.name!r} is unknown: expected one of {', '.join(RECIPES)}")
        if not 0 <= self.variant < len(YOSINSKI) or self.restarts < 1 or self.shorter <= 0:
            raise SpecError(
                f"expected variant 0 to {len(YOSINSKI) - 1}, restarts >= 1 and shorter > 0, "
                f"found {self.variant}, {self.restarts} and {self.shorter}"
            )

    def steps(self, published: int) -> int:
        return max(1, round(published / self.shorter))


def _fourier(network: Network, image: Image, recipe: Recipe, rate: float) -> tuple[Image, tuple[Phase, ...], Adam]:
    height, width = network.size
    # Lucid's transforms; reaches are of a 224-pixel image and shrink with it.
    reach = max(1, round(8 * min(height, width) / 224))
    transforms: tuple[Transform, ...] = (
        Pad(max(1, round(1.5 * reach))),
        Roll(reach),
        Affine((0.9, 1.1), 10.0),
        Roll(max(1, reach // 2)),
        Fit(height, width),
    )
    return image, (Phase(recipe.steps(512), rate, transforms=transforms),), Adam()


def plan(network: Network, target: Target, recipe: Recipe, peaks: Tensor | None = None, first: int = 0) -> Task:
    """The task of a recipe for all targets, recipe.restarts of each, in one batch; `first` is the number of its first
    sample in the whole run.

    peaks [T]: the largest answer over real images, by which `natural` weighs its objective. Raises SpecError without.
    """
    height, width = network.size
    planes = network.pixels.planes
    count = len(target.directions) * recipe.restarts
    seeds = draws.seeds(recipe.seed, count, first)
    directions = target.directions.repeat_interleave(recipe.restarts, 0).to(network.device, network.dtype)
    objective = At(network, target.layer, Along(directions, target.where), slope=WAKING_SLOPE, leaking=WAKING_STEPS)
    grey = torch.zeros(count, planes, height, width, device=network.device, dtype=network.dtype)
    box = Box(network.pixels)
    if recipe.name == "fourier":
        image, phases, adam = _fourier(
            network, Fourier(network.pixels, height, width, device=network.device), recipe, 0.05
        )
        return Task(objective, image, phases, adam, seeds)
    if recipe.name == "pattern":
        image, phases, adam = _fourier(
            network, Pattern(network.pixels, height, width, device=network.device), recipe, 0.005
        )
        return Task(objective, image, phases, adam, seeds)
    if recipe.name == "simonyan":
        # Ascent on the class score from the mean image. The paper names no rate: steps of so many bytes, ever smaller,
        # follow the same gradient at any scale of scores.
        phase = Phase(recipe.steps(400), 1.0, 0.01, constraints=(box,))
        return Task(objective, Pixels(grey), (phase,), Normalised(), seeds, ((recipe.decay, Decay()),))
    noise = draws.normal(seeds, (planes, height, width), network.dtype).to(network.device)
    if recipe.name == "yosinski":
        decay, sigma, every, small, idle = YOSINSKI[recipe.variant]
        acts: list[Constraint] = [Shrink(decay)] if decay else []
        acts += [Blur(sigma, every=every)] if sigma else []
        acts += [DropSmall(small)] if small else []
        acts += [DropIdle(idle)] if idle else []
        phase = Phase(recipe.steps(500), 1.0, constraints=(*acts, box))
        return Task(objective, Pixels(noise * 10), (phase,), Normalised(), seeds)
    if recipe.name == "inceptionism":
        # deepdraw's first octaves: a falling blur after every normalised step, under jitter.
        roll = (Roll(max(1, min(height, width) // 8)),)
        coarse = Phase(recipe.steps(190), 11.0, 11.0, roll, (Blur(2.5, 0.78), box))
        middle = Phase(recipe.steps(150), 6.0, 6.0, roll, (Blur(0.94, 0.78), box))
        fine = Phase(recipe.steps(150), 6.0, 3.0, roll, (Blur(0.78, 0.44), box))
        return Task(objective, Pixels(noise * 8), (coarse, middle, fine), Normalised(), seeds)
    return _natural(network, target, recipe, directions, seeds, peaks)


def _natural(
    network: Network, target: Target, recipe: Recipe, directions: Tensor, seeds: np.ndarray, peaks: Tensor | None
) -> Task:
    """IJCV'16, section 7: the priors of inversion, the answer in units of its peak over real images, leaky ReLUs."""
    if peaks is None or bool((peaks <= 0).any()):
        raise SpecError(
            "recipe 'natural' weighs each unit by its largest answer over real images: give --images, and live units"
        )
    height, width = network.size
    jitter = max(1, round(network.stride(target.layer) / 4))
    tall, wide = height + jitter - 1, width + jitter - 1
    noise = draws.uniform(seeds, (network.pixels.planes, tall, wide), network.dtype).to(network.device)
    field = receptive_side(network, target.layer)
    weight = 10000 / field**2
    scaled = directions / peaks.to(directions).repeat_interleave(recipe.restarts)[:, None]
    rate = tall * wide * 0.05 * B**2 / ALPHA
    ball = (PixelBall(2 * B),)
    return Task(
        At(network, target.layer, Along(scaled, target.where, weight), slope=0.05),
        Pixels(noise / 0.95 * (B / math.sqrt(3))),
        (
            Phase(recipe.steps(300), rate, transforms=(Window(height, width),), constraints=ball),
            Phase(recipe.steps(50), rate / 10, transforms=(Window(height, width),), constraints=ball),
        ),
        Forgetful(),
        seeds,
        ((1.0, Natural(ALPHA, B, BETA, B / B_OVER_V)),),
    )


def receptive_side(network: Network, layer: str) -> int:
    """Side of the square of pixels that the centre of a layer's map hangs on, by the gradient on five noises.

    A lower bound that is exact as soon as no path is dead in all five; the whole image for vectors.
    """
    shape = network.shape(layer)
    if len(shape) != 3:
        return max(network.size)
    noise = draws.uniform(draws.seeds(0, 5), (network.pixels.planes, *network.size), network.dtype) * 128
    z = noise.to(network.device).requires_grad_(True)
    code = network.features(z, [layer], LeakyRelus(0.5))[layer]
    (gradient,) = torch.autograd.grad(code[:, :, shape[1] // 2, shape[2] // 2].sum(), z)
    touched = (gradient != 0).any(0).any(0)
    rows, columns = touched.any(1).nonzero(), touched.any(0).nonzero()
    if not len(rows):
        return max(network.size)
    return int(max(rows.max() - rows.min(), columns.max() - columns.min())) + 1


def maximize(
    network: Network,
    target: Target,
    recipe: Recipe,
    peaks: Tensor | None = None,
    state_file: Path | None = None,
    identity: object = None,
    watch: Watcher | None = None,
    batch: int = 32,
) -> Outcome:
    """Images z [T x restarts, C, h, w] in the legal range, restarts of a target side by side; about `batch` at once."""
    outcomes = []
    for part, file in batches(len(target.directions), max(1, batch // recipe.restarts), state_file):
        some = replace(target, directions=target.directions[part], names=target.names[part])
        task = plan(network, some, recipe, None if peaks is None else peaks[part], part.start * recipe.restarts)
        known = [identity, target.layer, target.names, target.where, repr(recipe), part.start]
        outcomes.append(run(task, file, known, watch=watch))
    outcome = joined(outcomes)
    height, width = network.size
    spare = outcome.images.shape[2] - height, outcome.images.shape[3] - width
    images = outcome.images[:, :, spare[0] // 2 : spare[0] // 2 + height, spare[1] // 2 : spare[1] // 2 + width]
    low, high = network.pixels.limits(images)
    outcome.images = images.clamp(low, high)
    return outcome


@torch.no_grad()
def answers(network: Network, z: Tensor, target: Target, jitters: int = 8, seed: int = 1, batch: int = 16) -> Tensor:
    """Mean answer of every target to every picture under fresh circular jitter, [N, T].

    The shifts hang on (seed, place in z) and not on how the pictures were made.
    """
    reach = max(1, min(network.size) // 16)
    directions = target.directions.to(network.device, network.dtype)
    total = torch.zeros(len(z), len(directions), dtype=network.dtype, device=network.device)
    seeds = draws.seeds(seed, len(z))
    for round_ in range(jitters):
        for first in range(0, len(z), batch):
            part = z[first : first + batch].to(network.device, network.dtype)
            moved = Roll(reach)(part, Draws(seeds[first : first + batch], round_))
            code = network.features(moved, [target.layer])[target.layer]
            total[first : first + batch] += at_place(code, target.where) @ directions.T
    return total / jitters


@dataclass(frozen=True)
class Judgement:
    """What a maximum is worth, per target, over its restarts.

    The best synthetic and the best real answer under fresh jitter, their difference in standard deviations of the real
    answers, whether the picture beats every real one, and, in a second network, rank (0 = first) and probability of the
    class (means over the restarts).
    """

    name: str
    synthetic: float
    best_real: float | None
    gain_sd: float | None
    beats_all: bool | None
    second_rank: float | None
    second_probability: float | None


def judge(
    network: Network,
    images: Tensor,
    target: Target,
    real: Tensor | None,
    second: Network | None = None,
    class_numbers: Sequence[int] = (),
    seed: int = 1,
) -> list[Judgement]:
    """Judge images z [T x R, ...] against photos `real` z [N, ...] of the same network, and by a second network."""
    count = len(target.directions)
    restarts = len(images) // count
    made = answers(network, images, target, seed=seed).unflatten(0, (count, restarts)).cpu()
    photos = None if real is None else answers(network, real, target, seed=seed + 1).cpu()
    ranks: Tensor | None = None
    probabilities: Tensor | None = None
    if second is not None and class_numbers:
        shown = resize(second.pixels.from_uint8(network.pixels.to_uint8(images), second.dtype), *second.size)
        logits = second.codes(shown.to(second.device), OUTPUT).cpu().unflatten(0, (count, restarts))
        own = torch.stack([logits[i, :, n] for i, n in enumerate(class_numbers)])
        ranks = (logits > own[:, :, None]).sum(2).double()
        picked = torch.stack([logits.softmax(2)[i, :, n] for i, n in enumerate(class_numbers)])
        probabilities = picked.double()
    judged = []
    for i, name in enumerate(target.names):
        best = float(made[i, :, i].max())
        real_answers = None if photos is None else photos[:, i].double()
        top = None if real_answers is None else float(real_answers.max())
        deviation = 0.0 if real_answers is None or len(real_answers) < 2 else float(real_answers.std())
        judged.append(
            Judgement(
                name,
                best,
                top,
                None if top is None or deviation == 0 else (best - top) / deviation,
                None if top is None else best > top,
                None if ranks is None else float(ranks[i].mean()),
                None if probabilities is None else float(probabilities[i].mean()),
            )
        )
    return judged
