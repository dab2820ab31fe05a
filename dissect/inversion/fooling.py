"""High-confidence fooling (Nguyen et al. 2015): the gradient route, and whether training on the pictures helps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.errors import SpecError
from dissect.inversion import draws
from dissect.inversion.constraints import Box
from dissect.inversion.elites import Compositional, Direct, Encoding, Plan, confidences, evolve
from dissect.inversion.engine import Outcome, Watcher, run
from dissect.inversion.images import Pixels
from dissect.inversion.network import OUTPUT, Network
from dissect.inversion.objectives import At, LogProbability, one_hot
from dissect.inversion.optimisers import Normalised
from dissect.inversion.pixels import InputRange
from dissect.inversion.priors import Decay
from dissect.inversion.task import Phase, Task

ENCODINGS = ("direct", "cppn")


def encoding(name: str, network: Network, raw: bool = False) -> Encoding[Any]:
    """The encoding of a name for the pictures of a network. Raises SpecError for another name."""
    if name == "direct":
        return Direct(network.pixels.planes, network.size[0], network.size[1])
    if name == "cppn":
        return Compositional(network.pixels.planes, network.size[0], network.size[1], raw)
    raise SpecError(f"encoding {name!r} is unknown: expected {' or '.join(ENCODINGS)}")


def by_gradient(
    network: Network,
    classes: Sequence[int],
    steps: int = 200,
    decay: float = 0.01,
    seed: int = 0,
    state_file: Path | None = None,
    identity: object = None,
    watch: Watcher | None = None,
) -> Outcome:
    """Ascent on the log of the softmax with decay of the pixels, from faint noise: the authors' third route."""
    for number in classes:
        network.check_class(number)
    seeds = draws.seeds(seed, len(classes))
    noise = draws.normal(seeds, (network.pixels.planes, *network.size), network.dtype).to(network.device) * 8
    low, high = network.pixels.limits(noise)
    start = noise.clamp(low, high)
    score = LogProbability(one_hot(classes, network.classes))
    phase = Phase(steps, 1.0, 0.2, constraints=(Box(network.pixels),))
    priors = ((decay, Decay()),)
    task = Task(At(network, OUTPUT, score), Pixels(start), (phase,), Normalised(), seeds, priors)
    return run(task, state_file, [identity, list(classes), steps, decay], watch=watch)


# The strokes of digits 0 to 9 on a seven-segment display: top, two upper sides, middle, two lower sides, bottom.
_SEGMENTS = (
    "1110111",
    "0010010",
    "1011101",
    "1011011",
    "0111010",
    "1101011",
    "1101111",
    "1010010",
    "1111111",
    "1111011",
)
_ENDS = ((0, 0, 0, 1), (0, 0, 1, 0), (0, 1, 1, 1), (1, 0, 1, 1), (1, 0, 2, 0), (1, 1, 2, 1), (2, 0, 2, 1))


def digits(count: int, seed: int, side: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """A set like handwritten digits, made by rule: seven-segment figures, sheared, scaled, shifted and noisy.

    uint8 [count, side, side, 1] and labels int64 [count]; the classes take turns.
    """
    rng = np.random.default_rng([seed, side])
    labels = np.arange(count) % 10
    y, x = np.mgrid[0:side, 0:side] / (side - 1)
    images = np.empty((count, side, side, 1), np.uint8)
    for i, label in enumerate(labels.tolist()):
        high, wide = rng.uniform(0.5, 0.7), rng.uniform(0.25, 0.45)
        top, left = (1 - high) * rng.uniform(0.3, 0.7), (1 - wide) * rng.uniform(0.3, 0.7)
        shear, thick = rng.uniform(-0.25, 0.25), rng.uniform(0.03, 0.06)
        nearest = np.full((side, side), np.inf)
        for on, (r0, c0, r1, c1) in zip(_SEGMENTS[label], _ENDS):
            if on == "0":
                continue
            bend = rng.normal(0, 0.02, 4)
            ends = [
                (top + r / 2 * high + bend[2 * k], left + c * wide + bend[2 * k + 1])
                for k, (r, c) in enumerate(((r0, c0), (r1, c1)))
            ]
            (ay, ax), (by, bx) = [(py, px + shear * (0.5 - py)) for py, px in ends]
            along = np.clip(((y - ay) * (by - ay) + (x - ax) * (bx - ax)) / ((by - ay) ** 2 + (bx - ax) ** 2), 0, 1)
            nearest = np.minimum(nearest, np.hypot(y - ay - along * (by - ay), x - ax - along * (bx - ax)))
        ink = 1 / (1 + np.exp((nearest - thick) * 80))
        images[i, :, :, 0] = np.clip(ink * 255 * rng.uniform(0.7, 1) + rng.normal(0, 8, ink.shape), 0, 255)
    return images, labels.astype(np.int64)


DIGIT_PIXELS = InputRange((0.13,), (0.31,))


def small_network(classes: int, side: int = 28) -> nn.Module:
    """Two convolutions and two linear layers: enough for digits, trained in seconds."""
    inner = side // 4
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * inner * inner, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )


def train(
    make: Callable[[int], nn.Module],
    classes: int,
    z: Tensor,
    labels: Tensor,
    pixels: InputRange,
    epochs: int,
    seed: int,
) -> nn.Module:
    """A fresh network trained on z [N, C, h, w] with Adam; its weights hang on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make(classes).train()
    optimiser = torch.optim.Adam(module.parameters(), lr=2e-3)
    order = torch.Generator().manual_seed(seed)
    # A class of few pictures weighs as much as any other.
    weight = len(labels) / torch.bincount(labels, minlength=classes).clamp(min=1) / classes
    for _ in range(epochs):
        for rows in torch.randperm(len(z), generator=order).split(64):
            optimiser.zero_grad()
            F.cross_entropy(module(pixels.to_input(z[rows])), labels[rows], weight.float()).backward()
            optimiser.step()
    return module.eval().requires_grad_(False)


@dataclass(frozen=True)
class Round:
    """A network trained with the fooling pictures of all earlier rounds as an extra class, and fooled anew."""

    number: int
    classes: int
    fooling_in_training: int
    test_accuracy: float
    median_confidence: float
    old_pictures_caught: float | None


def retraining(
    train_set: tuple[np.ndarray, np.ndarray],
    test_set: tuple[np.ndarray, np.ndarray],
    pixels: InputRange,
    encoding_name: str,
    plan: Plan,
    rounds: int,
    epochs: int = 4,
    make: Callable[[int], nn.Module] = small_network,
    tell: Callable[[Round], None] | None = None,
) -> tuple[list[Round], list[np.ndarray]]:
    """Train, fool, add the fooling pictures as a class of their own, train again, fool again.

    Sets are (uint8 [N, h, w, C], labels). old_pictures_caught: share of the pictures that fooled the last network and
    that the new one puts into the extra class. Returns the rounds and the best pictures of each, uint8
    [classes, h, w, C].
    """
    images, labels = train_set
    classes = int(labels.max()) + 1
    z, answers = pixels.from_uint8(images), torch.from_numpy(labels)
    test_z, test_labels = pixels.from_uint8(test_set[0]), torch.from_numpy(test_set[1])
    fooling: list[Tensor] = []
    told: list[Round] = []
    shown: list[np.ndarray] = []
    for number in range(rounds):
        extra = torch.cat(fooling) if fooling else z[:0]
        total = classes + bool(len(extra))
        all_z = torch.cat([z, extra])
        all_labels = torch.cat([answers, torch.full((len(extra),), classes)])
        module = train(make, total, all_z, all_labels, pixels, epochs, plan.seed + number)
        network = Network(module, pixels, (images.shape[1], images.shape[2]), f"round {number}")
        seen = network.codes(test_z, OUTPUT, 100).argmax(1)
        code = encoding(encoding_name, network)
        caught = None
        if fooling:
            caught = float((network.codes(fooling[-1], OUTPUT, 100).argmax(1) == classes).double().mean())
        gathered: list[Any] = []

        def keep(genomes: Sequence[Any], fitness: np.ndarray, gathered: list[Any] = gathered) -> None:
            gathered.extend(genome for genome, value in zip(genomes, fitness) if value > 0.5)

        archive = evolve(network, code, Plan(**{**plan.__dict__, "seed": plan.seed + number}), classes, entered=keep)
        pictures = code.draw(archive.genomes)
        sample = code.draw([*archive.genomes, *gathered[-990:]])
        fooling.append(pixels.from_pixels(sample * (pixels.high - pixels.low) + pixels.low))
        shown.append((pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
        confidence = float(np.median(confidences(network, pictures, classes)[np.arange(classes), np.arange(classes)]))
        accuracy = float((seen == test_labels).double().mean())
        told.append(Round(number, total, len(extra), accuracy, confidence, caught))
        if tell is not None:
            tell(told[-1])
    return told, shown
