"""What hides a window. The choice is arbitrary, which is why `sensitivity` measures how much it matters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from dissect.attribution.network import Network
from dissect.attribution.occlusion.gather import patch_gather
from dissect.attribution.occlusion.windows import Windows
from dissect.errors import SpecError
from dissect.suggest import suggestion


class Occluder(Protocol):
    """`contents` for image [1, C, H, W] (as the network takes it): [K, C, h, w], one box a window. draws: how many."""

    @property
    def name(self) -> str: ...
    @property
    def draws(self) -> int: ...
    def contents(self, network: Network, x: Tensor, windows: Windows, draw: int) -> Tensor: ...


def _cut(image: Tensor, windows: Windows, shift: Tensor | None = None) -> Tensor:
    """Boxes [K, C, h, w] of an image [1, C, H, W], moved by shift [K, 2]."""
    start = windows.origin if shift is None else windows.origin + shift
    return patch_gather(image, image.new_zeros(len(windows), image.shape[1], 0, 0), start, start, windows.size, 0.0)


_GREYS = {0.0: "black", 0.5: "grey", 1.0: "white"}


@dataclass(frozen=True)
class Colour:
    """One colour on the 0..1 scale, before normalisation: 0.5 is mid grey. None: the network's mean colour."""

    colour: float | tuple[float, ...] | None = 0.5
    draws: int = 1

    @property
    def name(self) -> str:
        if self.colour is None:
            return "mean"
        if isinstance(self.colour, tuple):
            return "colour " + ",".join(f"{v:g}" for v in self.colour)
        return _GREYS.get(self.colour, f"grey {self.colour:g}")

    def contents(self, network: Network, x: Tensor, windows: Windows, draw: int) -> Tensor:
        planes = x.shape[1]
        if self.colour is None:
            row = x.new_zeros(1, planes, 1, 1)
        else:
            values = self.colour if isinstance(self.colour, tuple) else (self.colour,) * planes
            if len(values) != planes:
                raise SpecError(f"occluder {self.name!r}: {len(values)} values for {planes} colour planes")
            row = network.from_pixels(torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)).to(x)
        return row.expand(len(windows), planes, *windows.size)


@dataclass(frozen=True)
class Blur:
    """The image behind frosted glass: Gaussian, deviation in pixels, borders mirrored."""

    deviation: float = 8.0
    draws: int = 1

    @property
    def name(self) -> str:
        return f"blur {self.deviation:g}"

    def contents(self, network: Network, x: Tensor, windows: Windows, draw: int) -> Tensor:
        return _cut(gaussian_blur(x, self.deviation), windows)


@dataclass(frozen=True)
class LocalMean:
    """Each window in its own mean colour: what is lost is its structure."""

    draws: int = 1
    name: str = "local mean"

    def contents(self, network: Network, x: Tensor, windows: Windows, draw: int) -> Tensor:
        inside = windows.inside().to(x.device)[:, None]
        mean = (_cut(x, windows) * inside).sum((2, 3), keepdim=True) / inside.sum((2, 3), keepdim=True)
        return mean.expand(-1, -1, *windows.size)


@dataclass(frozen=True)
class Noise:
    """Uniform colours, `draws` times; the grid's value is the mean over the draws, with its deviation."""

    draws: int = 4
    seed: int = 0
    name: str = "noise"

    def contents(self, network: Network, x: Tensor, windows: Windows, draw: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + draw)
        pixels = torch.rand(x.shape[1:], generator=generator, dtype=torch.float64)[None]
        return _cut(network.from_pixels(pixels).to(x), windows)


@dataclass(frozen=True)
class Neighbour:
    """The patch beside the window: to the right, or to the left where there is none."""

    draws: int = 1
    name: str = "neighbour"

    def contents(self, network: Network, x: Tensor, windows: Windows, draw: int) -> Tensor:
        width = windows.size[1]
        right = windows.origin[:, 1] + 2 * width <= windows.width
        left = windows.origin[:, 1] >= width
        step = torch.where(right, width, torch.where(left, -width, 0))
        if not bool((right | left).all()):
            raise SpecError(
                f"occluder 'neighbour': the image of width {windows.width} has no room beside a patch of {width}"
            )
        return _cut(x, windows, torch.stack([torch.zeros_like(step), step], 1))


@dataclass(frozen=True)
class Inpaint:
    """A hook: paint(image [1, C, H, W], (top, left, bottom, right)) -> the whole image with the window filled in."""

    paint: Callable[[Tensor, tuple[int, int, int, int]], Tensor]
    name: str = "inpaint"
    draws: int = 1

    def contents(self, network: Network, x: Tensor, windows: Windows, draw: int) -> Tensor:
        boxes = []
        for i in range(len(windows)):
            (top, left), (bottom, right) = windows.low[i].tolist(), windows.high[i].tolist()
            painted = self.paint(x, (top, left, bottom, right))
            if painted.shape != x.shape:
                raise SpecError(f"occluder 'inpaint' returned {list(painted.shape)}, expected {list(x.shape)}")
            row, column = windows.origin[i].tolist()
            boxes.append(painted[0, :, row : row + windows.size[0], column : column + windows.size[1]])
        return torch.stack(boxes)


OCCLUDERS: dict[str, Occluder] = {
    "grey": Colour(0.5),
    "mean": Colour(None),
    "black": Colour(0.0),
    "white": Colour(1.0),
    "blur": Blur(),
    "local-mean": LocalMean(),
    "noise": Noise(),
    "neighbour": Neighbour(),
}


def find_occluder(text: str | Occluder) -> Occluder:
    """An occluder by name, a grey value such as 0.3, or a colour such as 0.2,0.4,0.1. Raises SpecError."""
    if not isinstance(text, str):
        return text
    if text in OCCLUDERS:
        return OCCLUDERS[text]
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        hint = suggestion(text, tuple(OCCLUDERS), f"expected {', '.join(OCCLUDERS)} or a colour on the 0..1 scale")
        raise SpecError(f"occluder {text!r} is unknown{hint}") from None
    return Colour(values if len(values) > 1 else values[0])


def gaussian_blur(x: Tensor, deviation: float) -> Tensor:
    """Gaussian of `deviation` pixels cut at 3 deviations, borders mirrored; images of any size [N, C, H, W]."""
    reach = max(1, round(3 * deviation))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-(offsets**2) / (2 * deviation**2))
    weights = (weights / weights.sum()).to(x)
    for axis in (2, 3):
        length = x.shape[axis]
        # Mirrored as often as it takes, so that a reach beyond the image is defined too.
        period = torch.arange(-reach, length + reach) % (2 * length)
        places = torch.where(period < length, period, 2 * length - 1 - period).to(x.device)
        shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
        planes = x.shape[1]
        x = F.conv2d(x.index_select(axis, places), weights.view(shape).expand(planes, 1, -1, -1), groups=planes)
    return x
