"""Random transforms of images on their way into the network, different for every sample, gradients passed back exactly.

What moves in from outside is 0, the mean grey of byte units.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dissect.errors import SpecError
from dissect.inversion.draws import Draws


class Transform(Protocol):
    def __call__(self, z: Tensor, draws: Draws) -> Tensor: ...


@dataclass(frozen=True)
class Roll:
    """Circular shift by up to `reach` pixels each way: keeps every pixel (inceptionism's jitter)."""

    reach: int

    def __call__(self, z: Tensor, draws: Draws) -> Tensor:
        down, right = draws.integers(-self.reach, self.reach), draws.integers(-self.reach, self.reach)
        return roll(z, down, right)


def roll(z: Tensor, down: np.ndarray, right: np.ndarray) -> Tensor:
    """Each image of z [B, C, h, w] rolled by its own integers [B]."""
    if len(z) == 1 or (np.all(down == down[0]) and np.all(right == right[0])):
        return torch.roll(z, (int(down[0]), int(right[0])), (2, 3))
    return torch.stack([torch.roll(image, (int(d), int(r)), (1, 2)) for image, d, r in zip(z, down, right)])


class _Cut(torch.autograd.Function):
    """A window [height, width] of each image of z [B, C, h, w] at its own place; the gradient is laid back at once."""

    @staticmethod
    def forward(ctx, z: Tensor, tops: list[int], lefts: list[int], height: int, width: int) -> Tensor:
        ctx.shape, ctx.windows = (
            z.shape,
            [(slice(top, top + height), slice(left, left + width)) for top, left in zip(tops, lefts)],
        )
        return torch.stack([image[:, rows, columns] for image, (rows, columns) in zip(z, ctx.windows)])

    @staticmethod
    def backward(ctx, grad: Tensor):
        out = grad.new_zeros(ctx.shape)
        for whole, (rows, columns), part in zip(out, ctx.windows, grad):
            whole[:, rows, columns] = part
        return out, None, None, None, None


@dataclass(frozen=True)
class Window:
    """A window cut at a random place of a larger canvas (IJCV'16: canvas = window + jitter - 1)."""

    height: int
    width: int

    def __call__(self, z: Tensor, draws: Draws) -> Tensor:
        spare_y, spare_x = z.shape[2] - self.height, z.shape[3] - self.width
        if min(spare_y, spare_x) < 0:
            raise SpecError(f"a window of {self.height} x {self.width} does not fit {z.shape[2]} x {z.shape[3]}")
        top, left = draws.integers(0, spare_y), draws.integers(0, spare_x)
        cut: Tensor = _Cut.apply(z, top.tolist(), left.tolist(), self.height, self.width)
        return cut


@dataclass(frozen=True)
class Centre:
    """The window in the middle of a canvas: what remains when the jitter ends."""

    height: int
    width: int

    def __call__(self, z: Tensor, draws: Draws) -> Tensor:
        return centre(z, self.height, self.width)


def centre(z: Tensor, height: int, width: int) -> Tensor:
    top, left = (z.shape[2] - height) // 2, (z.shape[3] - width) // 2
    return z[:, :, top : top + height, left : left + width]


@dataclass(frozen=True)
class Pad:
    """Mean grey on every side."""

    pixels: int

    def __call__(self, z: Tensor, draws: Draws) -> Tensor:
        return F.pad(z, [self.pixels] * 4)


def warp(z: Tensor, matrix: np.ndarray, height: int, width: int) -> Tensor:
    """Sample z [B, C, h, w] bilinearly; matrix [B, 2, 3] takes output to input places, both -1 … 1 edge to edge."""
    theta = torch.from_numpy(matrix).to(z)
    grid = F.affine_grid(theta, [len(z), z.shape[1], height, width], align_corners=False)
    return F.grid_sample(z, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@dataclass(frozen=True)
class Affine:
    """Scaled by a factor in scale and turned by up to `degrees`, about the centre."""

    scale: tuple[float, float] = (1.0, 1.0)
    degrees: float = 0.0

    def __call__(self, z: Tensor, draws: Draws) -> Tensor:
        factor = draws.uniform(*self.scale)
        angle = np.deg2rad(draws.uniform(-self.degrees, self.degrees))
        h, w = z.shape[2], z.shape[3]
        cosine, sine = np.cos(angle) / factor, np.sin(angle) / factor
        zero = np.zeros_like(factor)
        rows = [[cosine, sine * h / w, zero], [-sine * w / h, cosine, zero]]
        return warp(z, np.moveaxis(np.array(rows), 2, 0), h, w)


@dataclass(frozen=True)
class Crops:
    """A random box whose sides are a fraction in `fraction` of the image, brought back to full size (as in MaCo)."""

    fraction: tuple[float, float]

    def __call__(self, z: Tensor, draws: Draws) -> Tensor:
        side = draws.uniform(*self.fraction)
        x, y = draws.uniform(-1, 1) * (1 - side), draws.uniform(-1, 1) * (1 - side)
        zero = np.zeros_like(side)
        return warp(z, np.moveaxis(np.array([[side, zero, x], [zero, side, y]]), 2, 0), z.shape[2], z.shape[3])


@dataclass(frozen=True)
class Fit:
    """Brought to the size that the network takes, bilinearly."""

    height: int
    width: int

    def __call__(self, z: Tensor, draws: Draws) -> Tensor:
        return resize(z, self.height, self.width)


def resize(z: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, half-pixel centres; the same image where the size is the same."""
    if z.shape[2:] == (height, width):
        return z
    return F.interpolate(z, size=(height, width), mode="bilinear", align_corners=False)


def octave_sizes(height: int, width: int, octaves: int, ratio: float, smallest: int) -> list[tuple[int, int]]:
    """Sizes of the octaves, small to large. Raises SpecError where the smallest would not fit the network."""
    if octaves < 1 or ratio <= 1:
        raise SpecError(f"octaves: expected at least 1 and a ratio above 1, found {octaves} and {ratio}")
    sizes = [(math.floor(height / ratio**k), math.floor(width / ratio**k)) for k in reversed(range(octaves))]
    if min(sizes[0]) < smallest:
        raise SpecError(
            f"an image of {height} x {width} is too small for {octaves} octaves of ratio {ratio}: the smallest is "
            f"{sizes[0][0]} x {sizes[0][1]}, at least {smallest} is needed; use fewer --octaves or a larger image"
        )
    return sizes
