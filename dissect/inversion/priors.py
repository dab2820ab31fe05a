"""Priors on byte-unit images z [B, C, h, w]: each gives one number a sample and a gradient that is right everywhere."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dissect import ops, reference
from dissect.errors import SpecError


class Prior(Protocol):
    """An energy of images, [B, C, h, w] -> [B]."""

    def __call__(self, z: Tensor) -> Tensor: ...


class _Graded(torch.autograd.Function):
    """An energy [B] whose gradient comes with it."""

    @staticmethod
    def forward(ctx, z: Tensor, rule: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        energy, gradient = rule(z)
        ctx.save_for_backward(gradient)
        return energy

    @staticmethod
    def backward(ctx, grad: Tensor):
        (gradient,) = ctx.saved_tensors
        return gradient * grad.view(-1, 1, 1, 1), None


def _graded(z: Tensor, rule: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    value: Tensor = _Graded.apply(z, rule)
    return value


def _summed(rule: Callable[[Tensor, float], tuple[Tensor, Tensor]], power: float) -> Callable[..., Any]:
    def sums(z: Tensor) -> tuple[Tensor, Tensor]:
        values, gradient = rule(z, power)
        return values.flatten(1).sum(1), gradient

    return sums


def total_variation(z: Tensor, beta: float) -> Tensor:
    """TV^beta summed over pixels and planes, [B] (Mahendran & Vedaldi 2015, section 2.1)."""
    return _graded(z, _summed(reference.total_variation, beta))


@dataclass(frozen=True)
class TotalVariation:
    """Mean over pixels of TV^beta over V^beta: 1 for a typical image, whose gradient is V everywhere (IJCV'16).

    The colour planes are summed, so V is the length of the gradient over all planes where beta = 2.
    """

    beta: float
    v: float

    def __post_init__(self) -> None:
        if self.beta < 1 or self.v <= 0:
            raise SpecError(f"TV^beta needs beta >= 1 and V > 0, found beta {self.beta} and V {self.v}")

    def __call__(self, z: Tensor) -> Tensor:
        return total_variation(z, self.beta) / (z.shape[2] * z.shape[3] * self.v**self.beta)


@dataclass(frozen=True)
class AlphaNorm:
    """Mean over pixels of ||z_px||_2^alpha over B^alpha: 1 for an image whose every pixel has length B (IJCV'16)."""

    alpha: float
    b: float

    def __post_init__(self) -> None:
        if self.alpha < 1 or self.b <= 0:
            raise SpecError(f"the alpha-norm needs alpha >= 1 and B > 0, found alpha {self.alpha} and B {self.b}")

    def __call__(self, z: Tensor) -> Tensor:
        value = _graded(z, _summed(reference.alpha_norm, self.alpha))
        return value / (z.shape[2] * z.shape[3] * self.b**self.alpha)


@dataclass(frozen=True)
class Natural:
    """AlphaNorm and TotalVariation together, weighing the same: what natural pre-images are asked for (IJCV'16).

    float32 images are read once, by a kernel; others as the two are defined.
    """

    alpha: float
    b: float
    beta: float
    v: float

    def __post_init__(self) -> None:
        self.apart()  # refuses what either refuses

    def apart(self) -> tuple[AlphaNorm, TotalVariation]:
        return AlphaNorm(self.alpha, self.b), TotalVariation(self.beta, self.v)

    @staticmethod
    def read_at_once(z: Tensor) -> bool:
        """Whether the kernels take these images."""
        return z.dtype == torch.float32 and ops.answers(z)

    def scales(self, z: Tensor) -> tuple[float, float, float, float]:
        """alpha, beta and what their sums are multiplied with, as `ops.natural` takes them."""
        places = z.shape[2] * z.shape[3]
        return self.alpha, 1 / (places * self.b**self.alpha), self.beta, 1 / (places * self.v**self.beta)

    def __call__(self, z: Tensor) -> Tensor:
        if not self.read_at_once(z):
            lengths, variation = self.apart()
            return lengths(z) + variation(z)
        return _graded(z, self._read)

    def _read(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.contiguous()
        gradient, rows = torch.empty_like(z), z.new_empty(len(z), z.shape[2], 2, dtype=torch.float64)
        ops.natural(z, *self.scales(z), gradient, rows)
        return rows[..., 0].sum(1).to(z.dtype), gradient


@dataclass(frozen=True)
class AlphaSum:
    """sum over all values of |z|^alpha / 2, the alpha-norm of the CVPR'15 code; alpha = 2 is plain decay."""

    alpha: float

    def __call__(self, z: Tensor) -> Tensor:
        return z.abs().pow(self.alpha).flatten(1).sum(1) / 2


@dataclass(frozen=True)
class VariationSum:
    """TV^beta / 2 summed, as in the CVPR'15 code."""

    beta: float

    def __call__(self, z: Tensor) -> Tensor:
        return total_variation(z, self.beta) / 2


@dataclass(frozen=True)
class Decay:
    """||z||^2, Simonyan's R, in units of 255^2 so that its weight does not hang on the scale of bytes."""

    def __call__(self, z: Tensor) -> Tensor:
        return (z / 255).square().flatten(1).sum(1)
