"""Parametrisations: what is optimised, and the byte-unit image [B, C, h, w] that it stands for."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dissect.inversion import draws
from dissect.inversion.pixels import InputRange

Variables = tuple[Tensor, ...]

# Square root of the covariance of ImageNet's colours (lucid's figures): a row for each plane, directions in columns.
COLOURS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])


class Image(Protocol):
    """start: variables, sample first in every tensor; image: differentiable, sample by sample."""

    free: bool  # whether the variable is the image itself, so that constraints on pixels can act on it

    @property
    def radius(self) -> float | None:
        """Largest length of a pixel of what is shown; None where the image keeps its own bounds."""

    def start(self, seeds: np.ndarray) -> Variables: ...
    def image(self, variables: Variables) -> Tensor: ...


@dataclass(frozen=True)
class Pixels:
    """The image itself, from a given start [B, C, h, w]."""

    first: Tensor
    free = True
    radius = None

    def start(self, seeds: np.ndarray) -> Variables:
        return (self.first.clone(),)

    def image(self, variables: Variables) -> Tensor:
        return variables[0]


def _squashed(pixels: InputRange, free: Tensor) -> Tensor:
    """Unbounded values to z inside the legal range, by a sigmoid."""
    return pixels.from_pixels(torch.sigmoid(free) * (pixels.high - pixels.low) + pixels.low)


def _frequencies(height: int, width: int) -> np.ndarray:
    """Length of the spatial frequency of each entry of a real spectrum, [h, w // 2 + 1], cycles a pixel."""
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])


@dataclass(frozen=True)
class Fourier:
    """A spectrum divided by frequency^decay, with decorrelated colours, through a sigmoid (Olah et al. 2017).

    Every frequency starts and moves with the energy that natural images give it, which steps on pixels do not.
    Even and odd sizes alike: exactly width // 2 + 1 columns are kept.
    """

    pixels: InputRange
    height: int
    width: int
    deviation: float = 0.01
    decay: float = 1.0
    device: torch.device | str = "cpu"
    free = False
    radius = None

    def start(self, seeds: np.ndarray) -> Variables:
        shape = (self.pixels.planes, self.height, self.width // 2 + 1, 2)
        return ((draws.normal(seeds, shape) * self.deviation).to(self.device),)

    def image(self, variables: Variables) -> Tensor:
        (spectrum,) = variables
        slope = np.maximum(_frequencies(self.height, self.width), 1 / max(self.height, self.width)) ** -self.decay
        scale = torch.from_numpy(slope * math.sqrt(self.height * self.width)).to(spectrum)
        free = torch.fft.irfft2(torch.view_as_complex(spectrum) * scale, s=(self.height, self.width)) / 4
        if self.pixels.planes == 3:
            matrix = torch.from_numpy(COLOURS / np.linalg.norm(COLOURS, axis=0).max()).to(free)
            free = torch.einsum("ij,bjhw->bihw", matrix, free)
        return _squashed(self.pixels, free)


@dataclass(frozen=True)
class Spectrum:
    """A spectrum divided by frequency, on the scale of byte units and without a squash: variables of size 1 stand for a
    picture whose pixels have length `b` on average. `faint`: size at the start. No pixel that is shown is longer than
    2 b; while it is sought it may be, for one that were cut off would have no slope to come back by."""

    planes: int
    height: int
    width: int
    b: float
    faint: float
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    free = False

    def start(self, seeds: np.ndarray) -> Variables:
        shape = (self.planes, self.height, self.width // 2 + 1, 2)
        return ((draws.normal(seeds, shape, self.dtype) * self.faint).to(self.device),)

    @property
    def radius(self) -> float:
        return 2 * self.b

    def image(self, variables: Variables) -> Tensor:
        (spectrum,) = variables
        return torch.fft.irfft2(torch.view_as_complex(spectrum) * self._scale(spectrum), s=(self.height, self.width))

    def variables(self, image: Tensor) -> Variables:
        """The inverse of `image`."""
        spectrum = torch.fft.rfft2(image)
        return (torch.view_as_real(spectrum / self._scale(image)).contiguous(),)

    def _scale(self, like: Tensor) -> Tensor:
        """What a variable of size 1 is of each frequency, [h, w // 2 + 1]."""
        slope = 1 / np.maximum(_frequencies(self.height, self.width), 1 / max(self.height, self.width))
        # Of the first and, for even widths, the last column only the real part of what it adds up to is kept.
        share = np.full(self.width // 2 + 1, 4.0)
        share[[0, -1][: 2 - self.width % 2]] = 1
        power = (slope**2 * share).sum() / (self.height * self.width) ** 2
        return torch.from_numpy(slope * self.b / math.sqrt(self.planes * power)).to(like)


@dataclass(frozen=True)
class Pattern:
    """A small network from place to colour, its weights optimised: a compositional pattern (Mordvintsev et al. 2018).

    Each layer passes on (arctan u / 0.67, arctan^2 u / 0.6), which keeps the mean and the variance of a Gaussian u.
    Inputs are x, y in -sqrt 3 … sqrt 3, so unit variance, their radius and a bias. Any size can be rendered.
    """

    pixels: InputRange
    height: int
    width: int
    layers: int = 6
    units: int = 20
    device: torch.device | str = "cpu"
    free = False
    radius = None

    def start(self, seeds: np.ndarray) -> Variables:
        weights = []
        fan = 4
        for layer in range(self.layers):
            weights.append(draws.normal(seeds + np.uint64(layer + 1), (self.units, fan)) / math.sqrt(fan))
            fan = 2 * self.units + 1
        weights.append(torch.zeros(len(seeds), self.pixels.planes, fan))
        return tuple(weight.to(self.device) for weight in weights)

    def image(self, variables: Variables) -> Tensor:
        like = variables[0]
        y = torch.linspace(-math.sqrt(3), math.sqrt(3), self.height, dtype=like.dtype, device=like.device)
        x = torch.linspace(-math.sqrt(3), math.sqrt(3), self.width, dtype=like.dtype, device=like.device)
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        one = torch.ones(1, self.height * self.width, dtype=like.dtype, device=like.device)
        places = torch.stack([grid_x.flatten(), grid_y.flatten(), torch.hypot(grid_x, grid_y).flatten()])
        values = torch.cat([places, one]).expand(len(like), -1, -1)
        for weight in variables[:-1]:
            bend = torch.atan(weight @ values)
            values = torch.cat([bend / 0.67, bend.square() / 0.6, one.expand(len(like), -1, -1)], 1)
        return _squashed(self.pixels, (variables[-1] @ values).unflatten(2, (self.height, self.width)))
