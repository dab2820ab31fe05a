"""Priors on byte-unit images z [B, C, h, w]: each gives one number a sample and a gradient that is right everywhere."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dissect.errors import SpecError

# Below this squared gradient the slope of TV^beta is held, as the CVPR'15 code does: beta < 2 has no bound at 0.
FLOOR = 1e-5


class Prior(Protocol):
    """An energy of images, [B, C, h, w] -> [B]."""

    def __call__(self, z: Tensor) -> Tensor: ...


class _TotalVariation(torch.autograd.Function):
    """sum over pixels and planes of (dx^2 + dy^2)^(beta / 2), last row and column replicated; [B]."""

    @staticmethod
    def forward(ctx, z: Tensor, beta: float) -> Tensor:
        dx = torch.zeros_like(z)
        dy = torch.zeros_like(z)
        torch.sub(z[..., :, 1:], z[..., :, :-1], out=dx[..., :, :-1])
        torch.sub(z[..., 1:, :], z[..., :-1, :], out=dy[..., :-1, :])
        squared = (dx * dx).addcmul_(dy, dy)
        ctx.beta = beta
        ctx.save_for_backward(dx, dy, squared)
        powered = squared if beta == 2 else squared.pow(beta / 2)
        return powered.flatten(1).sum(1)

    @staticmethod
    def backward(ctx, grad: Tensor):
        dx, dy, squared = ctx.saved_tensors
        if ctx.beta != 2:
            slope = squared.clamp(min=FLOOR).pow_(ctx.beta / 2 - 1)
            dx, dy = slope * dx, slope * dy
        out = (dx + dy).neg_()
        out[..., :, 1:] += dx[..., :, :-1]
        out[..., 1:, :] += dy[..., :-1, :]
        return out.mul_(ctx.beta * grad.view(-1, 1, 1, 1)), None


def total_variation(z: Tensor, beta: float) -> Tensor:
    """TV^beta summed over pixels and planes, [B] (Mahendran & Vedaldi 2015, section 2.1)."""
    value: Tensor = _TotalVariation.apply(z, beta)
    return value


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


class _AlphaNorm(torch.autograd.Function):
    """sum over pixels of (sum over planes of z^2)^(alpha / 2); [B]. The gradient at 0 is 0 for every alpha >= 1."""

    @staticmethod
    def forward(ctx, z: Tensor, alpha: float) -> Tensor:
        squared = (z * z).sum(1, keepdim=True)
        ctx.alpha = alpha
        ctx.save_for_backward(z, squared)
        return squared.pow(alpha / 2).flatten(1).sum(1)

    @staticmethod
    def backward(ctx, grad: Tensor):
        z, squared = ctx.saved_tensors
        slope = torch.where(squared > 0, ctx.alpha * squared.pow(ctx.alpha / 2 - 1), 0)
        return z * (slope * grad.view(-1, 1, 1, 1)), None


@dataclass(frozen=True)
class AlphaNorm:
    """Mean over pixels of ||z_px||_2^alpha over B^alpha: 1 for an image whose every pixel has length B (IJCV'16)."""

    alpha: float
    b: float

    def __post_init__(self) -> None:
        if self.alpha < 1 or self.b <= 0:
            raise SpecError(f"the alpha-norm needs alpha >= 1 and B > 0, found alpha {self.alpha} and B {self.b}")

    def __call__(self, z: Tensor) -> Tensor:
        value: Tensor = _AlphaNorm.apply(z, self.alpha)
        return value / (z.shape[2] * z.shape[3] * self.b**self.alpha)


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
