"""Typed pixels: what range a network takes, so that no scale is ever guessed.

Every recipe here works on one scale, *byte units about the mean*: z = 255 (pixel - mean) / (high - low), images as
[N, C, h, w]. It is the scale of the published settings (mean-subtracted 0..255); grey mean is 0, and what the network
receives is a plain scaling of z.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dissect.errors import SpecError


class Preprocessing(Protocol):
    """What a loaded model says of its input: mean and standard deviation on the 0..1 scale, and who says so."""

    @property
    def mean(self) -> Sequence[float]: ...
    @property
    def std(self) -> Sequence[float]: ...
    @property
    def origin(self) -> str: ...


@dataclass(frozen=True)
class InputRange:
    """Pixels lie in [low, high]; the module is fed (pixel - mean) / std, one mean and std per colour plane."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise SpecError(
                f"input range: {len(self.mean)} means and {len(self.std)} deviations, expected as many of each"
            )
        if not np.isfinite([*self.mean, *self.std, self.low, self.high]).all() or min(self.std) <= 0:
            raise SpecError(f"input range: mean {self.mean} and std {self.std} must be finite, and std positive")
        if self.high <= self.low:
            raise SpecError(f"input range: high {self.high} must be above low {self.low}")

    @classmethod
    def of(cls, preprocessing: Preprocessing | None) -> "InputRange":
        """The range of a loaded model. Raises SpecError where it is unknown, rather than guess."""
        if preprocessing is None:
            raise SpecError("the input range of this network is unknown: give --mean and --std (on the 0..1 scale)")
        return cls(tuple(preprocessing.mean), tuple(preprocessing.std))

    @property
    def planes(self) -> int:
        return len(self.mean)

    def _row(self, values: Sequence[float], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """[N, C, h, w] in [low, high] -> byte units about the mean."""
        return (pixels - self._row(self.mean, pixels)) * (255 / (self.high - self.low))

    def to_pixels(self, z: Tensor) -> Tensor:
        return z * ((self.high - self.low) / 255) + self._row(self.mean, z)

    def to_input(self, z: Tensor) -> Tensor:
        """What the module is fed: (pixel - mean) / std."""
        return z * self._row([(self.high - self.low) / 255 / s for s in self.std], z)

    def limits(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest z of each plane, [1, C, 1, 1] each: a legal picture lies between them."""
        scale = 255 / (self.high - self.low)
        return (
            self._row([(self.low - m) * scale for m in self.mean], like),
            self._row([(self.high - m) * scale for m in self.mean], like),
        )

    def from_uint8(self, images: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
        """uint8 [N, h, w, C] -> z [N, C, h, w]."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != self.planes:
            raise SpecError(
                f"images: expected uint8 [N, h, w, {self.planes}], found {images.dtype} {list(images.shape)}"
            )
        stored = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(dtype)
        return self.from_pixels(stored * ((self.high - self.low) / 255) + self.low)

    def to_uint8(self, z: Tensor) -> np.ndarray:
        """z [N, C, h, w] -> uint8 [N, h, w, C]: rounded half to even, clipped to the range."""
        pixels = (self.to_pixels(z.detach().double()) - self.low) * (255 / (self.high - self.low))
        return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def quantise(self, z: Tensor) -> Tensor:
        """z as an 8-bit file would give it back."""
        return self.from_uint8(self.to_uint8(z), z.dtype).to(z.device)


def in_ball(z: Tensor, radius: float) -> Tensor:
    """z [B, C, h, w] with the length of every pixel over the planes at most `radius`; differentiable."""
    # Far inside nothing is scaled, and the root of 0 has no slope.
    length = z.square().sum(1, keepdim=True).clamp(min=(radius / 2) ** 2).sqrt()
    # A few ulps inside, so that the rounding of the product cannot leave the ball again.
    inside = radius * (1 - 4 * torch.finfo(z.dtype).eps)
    return z * torch.where(length > radius, inside / length, 1)
