"""A set whose answer is known: one shape decides the class, its place is the mask, other shapes distract.

The network that goes with it is built by hand and has learnt nothing: a matched filter for each shape, a ReLU that only
a match passes, the maximum over places. What it looks at is therefore certain.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from dissect.attribution.judge.table import Item
from dissect.attribution.network import Network
from dissect.attribution.targets import class_target

SIDE = 9  # of a shape, pixels
SHAPES = ("ring", "cross", "plus", "frame", "stripes", "blocks")  # the classes; what else is drawn belongs to none
DISTRACTORS = ("corner", "bar")


def template(name: str) -> np.ndarray:
    """The shape as bool [SIDE, SIDE]."""
    y, x = np.mgrid[:SIDE, :SIDE]
    middle = SIDE // 2
    radius = np.hypot(y - middle, x - middle)
    edge = (y == 0) | (x == 0) | (y == SIDE - 1) | (x == SIDE - 1)
    shapes = {
        "ring": (radius > 2.4) & (radius < 4.4),
        "cross": (np.abs(y - x) <= 1) | (np.abs(y + x - SIDE + 1) <= 1),
        "plus": (np.abs(y - middle) <= 1) | (np.abs(x - middle) <= 1),
        "frame": edge,
        "stripes": y % 3 == 0,
        "blocks": ((y // 3) + (x // 3)) % 2 == 0,
        "corner": (y <= 2) | (x <= 2),
        "bar": np.abs(x - middle) <= 1,
    }
    return np.asarray(shapes[name], dtype=bool)


def planted_network() -> Network:
    """Contrast in two signs, ReLU, one matched filter a class, ReLU, global maximum, one score a class."""
    filters = np.stack([template(name).astype(np.float64) for name in SHAPES])
    filters -= filters.mean((1, 2), keepdims=True)
    filters /= np.sqrt((filters**2).sum((1, 2), keepdims=True))
    # What each shape scores on its own filter; the threshold lies between that and its best score on any other shape.
    own = np.array([float((f * template(name)).sum()) for f, name in zip(filters, SHAPES)])
    first = nn.Conv2d(3, 2, 1, bias=False)
    second = nn.Conv2d(2, len(SHAPES), SIDE, padding=SIDE // 2)
    last = nn.Linear(len(SHAPES), len(SHAPES), bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1) / 3)
        weights = torch.from_numpy(filters / own[:, None, None]).float()
        second.weight.copy_(torch.stack([weights, -weights], 1))
        assert second.bias is not None
        second.bias.fill_(-0.5)
        last.weight.copy_(torch.eye(len(SHAPES)) * 20)
    module = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), last)
    return Network(module.eval().requires_grad_(False), (0.5,) * 3, (0.5,) * 3, "the planted network")


def planted_image(
    shape: str, row: int, column: int, side: int, rng: np.random.Generator, distractors: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [side, side, 3], mask bool): a bright shape on a grey texture, distractors where there is room."""
    texture = rng.normal(0, 6, (side, side)) + 6 * np.sin(np.arange(side) / 3 + rng.uniform(0, 6))[None, :]
    image = 100 + texture
    taken = np.zeros((side, side), bool)

    def draw(name: str, top: int, left: int, amount: float) -> None:
        image[top : top + SIDE, left : left + SIDE] += amount * template(name)
        taken[max(0, top - 1) : top + SIDE + 1, max(0, left - 1) : left + SIDE + 1] = True

    draw(shape, row, column, 110)
    mask = np.zeros((side, side), bool)
    mask[row : row + SIDE, column : column + SIDE] = True
    for _ in range(distractors):
        for _ in range(20):
            top, left = (int(v) for v in rng.integers(0, side - SIDE + 1, 2))
            if not taken[max(0, top - 1) : top + SIDE + 1, max(0, left - 1) : left + SIDE + 1].any():
                draw(str(rng.choice(DISTRACTORS)), top, left, 90)
                break
    return np.repeat(image.round().clip(0, 255).astype(np.uint8)[:, :, None], 3, 2), mask


def planted_items(count: int, side: int = 48, seed: int = 0, distractors: int = 2) -> Iterator[Item]:
    """`count` questions, classes in turn, the shape at a uniformly random place."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        shape = SHAPES[i % len(SHAPES)]
        row, column = (int(v) for v in rng.integers(0, side - SIDE + 1, 2))
        image, mask = planted_image(shape, row, column, side, rng, distractors)
        yield Item(image, mask, class_target(i % len(SHAPES)), f"{i:04d} {shape}")


def centre_expectation(side: int) -> float:
    """How often the centre of an image lies on the shape, without tolerance: places counted, both middle pixels of an
    even side alike."""
    middle: Tensor = torch.tensor([(side - 1) // 2, side // 2]).unique()
    places = range(side - SIDE + 1)
    hits = [float(sum(place <= m < place + SIDE for m in middle.tolist())) / len(middle) for place in places]
    # Rows and columns are independent, and so is which of the middle pixels is meant.
    return (sum(hits) / len(hits)) ** 2
