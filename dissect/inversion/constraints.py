"""What is done to the pixels after each step: hard bounds, and the published shrinking and smoothing."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from dissect.inversion.pixels import InputRange, in_ball


class Constraint(Protocol):
    """z [B, C, h, w] after step `step` of its phase, `share` of the phase done; gradient is the step's own."""

    def __call__(self, z: Tensor, gradient: Tensor, step: int, share: float) -> Tensor: ...


@dataclass(frozen=True)
class PixelBall:
    """Length of every pixel over the planes at most `radius` (IJCV'16: 160)."""

    radius: float

    def __call__(self, z: Tensor, gradient: Tensor, step: int, share: float) -> Tensor:
        return in_ball(z, self.radius)


@dataclass(frozen=True)
class Box:
    """Inside the legal range of the network."""

    pixels: InputRange

    def __call__(self, z: Tensor, gradient: Tensor, step: int, share: float) -> Tensor:
        low, high = self.pixels.limits(z)
        return z.clamp(low, high)


@dataclass(frozen=True)
class Near:
    """No value further than `reach` bytes from `anchor` [B, C, h, w]."""

    anchor: Tensor
    reach: float

    def __call__(self, z: Tensor, gradient: Tensor, step: int, share: float) -> Tensor:
        return z.clamp(self.anchor - self.reach, self.anchor + self.reach)


@dataclass(frozen=True)
class Shrink:
    """z = (1 - rate) z (Yosinski's decay)."""

    rate: float

    def __call__(self, z: Tensor, gradient: Tensor, step: int, share: float) -> Tensor:
        return z * (1 - self.rate)


def blur(z: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of z [B, C, h, w], edges repeated; sigma in pixels, kernel cut at four sigma. 0 changes nothing."""
    if sigma <= 0:
        return z
    reach = max(1, math.ceil(4 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=z.dtype, device=z.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    planes = z.shape[1]
    rows = kernel.view(1, 1, -1, 1).expand(planes, 1, -1, 1)
    z = F.conv2d(F.pad(z, (0, 0, reach, reach), mode="replicate"), rows, groups=planes)
    return F.conv2d(F.pad(z, (reach, reach, 0, 0), mode="replicate"), rows.transpose(2, 3), groups=planes)


@dataclass(frozen=True)
class Blur:
    """Blurred each `every` steps, sigma going in a line from `sigma` to `end` over the phase (deepdraw, Yosinski)."""

    sigma: float
    end: float | None = None
    every: int = 1

    def __call__(self, z: Tensor, gradient: Tensor, step: int, share: float) -> Tensor:
        if step % self.every:
            return z
        end = self.sigma if self.end is None else self.end
        return blur(z, self.sigma + (end - self.sigma) * share)


def _below(values: Tensor, percent: float) -> Tensor:
    """Where a value [B, 1, h, w] lies under the percentile of its image."""
    cut = torch.quantile(values.flatten(1), percent / 100, dim=1)
    return values < cut.view(-1, 1, 1, 1)


@dataclass(frozen=True)
class DropSmall:
    """Pixels whose length is under a percentile become mean grey (Yosinski's small-norm clipping)."""

    percent: float

    def __call__(self, z: Tensor, gradient: Tensor, step: int, share: float) -> Tensor:
        return z.masked_fill(_below(z.square().sum(1, keepdim=True), self.percent), 0)


@dataclass(frozen=True)
class DropIdle:
    """Pixels that contribute least, |sum over planes of z times gradient|, become mean grey."""

    percent: float

    def __call__(self, z: Tensor, gradient: Tensor, step: int, share: float) -> Tensor:
        return z.masked_fill(_below((z * gradient).sum(1, keepdim=True).abs(), self.percent), 0)
