"""Optimisers with a state for every sample: no sample's step hangs on another's, and all of it can be saved.

step(variables, gradients, state, rate) returns new variables and state; rate is [B], times the sign of descent.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dissect.inversion.images import Variables


def per_sample(rate: Tensor, like: Tensor) -> Tensor:
    """[B] shaped to multiply `like` [B, ...]."""
    return rate.to(like).view(-1, *[1] * (like.dim() - 1))


class Optimiser(Protocol):
    slots: int  # tensors of state for each variable, zero at the start

    def step(
        self, variables: Variables, gradients: Variables, state: Variables, rate: Tensor, count: int
    ) -> tuple[Variables, Variables]: ...


@dataclass(frozen=True)
class Momentum:
    """v = mu v - rate g; x = x + v. mu = 0 is plain descent (CVPR'15, Simonyan)."""

    mu: float = 0.9
    slots = 1

    def step(
        self, variables: Variables, gradients: Variables, state: Variables, rate: Tensor, count: int
    ) -> tuple[Variables, Variables]:
        state = tuple(self.mu * v - per_sample(rate, g) * g for v, g in zip(state, gradients))
        return tuple(x + v for x, v in zip(variables, state)), state


@dataclass(frozen=True)
class Forgetful:
    """AdaGrad with a fading memory and momentum, as IJCV'16 shipped it.

    a = 0.9 a + g^2; v = 0.9 v - g / (1 / rate + sqrt a); x = x + v.
    """

    mu: float = 0.9
    memory: float = 0.9
    slots = 2

    def step(
        self, variables: Variables, gradients: Variables, state: Variables, rate: Tensor, count: int
    ) -> tuple[Variables, Variables]:
        half = len(variables)
        squares = tuple((a * self.memory).addcmul_(g, g) for a, g in zip(state[:half], gradients))
        speeds = tuple(
            (v * self.mu).addcdiv_(g, a.sqrt().add_(1 / per_sample(rate, g)), value=-1)
            for v, a, g in zip(state[half:], squares, gradients)
        )
        return tuple(x + v for x, v in zip(variables, speeds)), squares + speeds


@dataclass(frozen=True)
class Adam:
    """Adam with bias correction (Kingma & Ba 2015)."""

    first: float = 0.9
    second: float = 0.999
    eps: float = 1e-8
    slots = 2

    def step(
        self, variables: Variables, gradients: Variables, state: Variables, rate: Tensor, count: int
    ) -> tuple[Variables, Variables]:
        half = len(variables)
        means = tuple(self.first * m + (1 - self.first) * g for m, g in zip(state[:half], gradients))
        squares = tuple(self.second * s + (1 - self.second) * g * g for s, g in zip(state[half:], gradients))
        fix1, fix2 = 1 - self.first ** (count + 1), 1 - self.second ** (count + 1)
        moved = tuple(
            x - per_sample(rate, x) * (m / fix1) / ((s / fix2).sqrt() + self.eps)
            for x, m, s in zip(variables, means, squares)
        )
        return moved, means + squares


@dataclass(frozen=True)
class Normalised:
    """x = x - rate g / mean|g|: each step changes a pixel by `rate` on average (DeepDream, deepdraw)."""

    slots = 0

    def step(
        self, variables: Variables, gradients: Variables, state: Variables, rate: Tensor, count: int
    ) -> tuple[Variables, Variables]:
        moved = []
        for x, g in zip(variables, gradients):
            size = g.abs().flatten(1).mean(1).clamp(min=torch.finfo(g.dtype).tiny)
            moved.append(x - per_sample(rate / size, g) * g)
        return tuple(moved), state


@dataclass(frozen=True)
class Sign:
    """x = x - rate sign g (FGSM, PGD in the largest-value norm, universal illusions)."""

    slots = 0

    def step(
        self, variables: Variables, gradients: Variables, state: Variables, rate: Tensor, count: int
    ) -> tuple[Variables, Variables]:
        return tuple(x - per_sample(rate, g) * g.sign() for x, g in zip(variables, gradients)), state
