"""Rules in slots: what the backward pass does at a ReLU, at a max pool and at a linear map.

A rule is a name and one function. R is what arrives from above, as in Springenberg et al. 2015 (arXiv 1412.6806,
section 3.4). Nothing else of a method is fixed here, so a new rule is a few lines.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ReluRule:
    """back(R, on) -> R below; on is f > 0, strictly: at f = 0 nothing passes the forward gate."""

    name: str
    back: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PoolRule:
    """back(R, place, size) -> R below, flat.

    R and place [N, U, P']: what arrives at each window and the flat place of its maximum; size: places of the input.
    """

    name: str
    back: Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class LinearRule:
    """back(c, x, weight, z, pull) -> coefficient below, where relevance is R = value x coefficient.

    z is the output with its bias; call(x, w) the map without one; pull(w, s) the transposed map of s with weight w.
    In this form sums, shortcuts, ReLUs, pools and batch norms conserve relevance by the plain gradient, and only linear
    maps need a rule (Ancona et al. 2018, arXiv 1711.06104, proposition 2).
    """

    name: str
    back: Callable[[Tensor, Tensor, Tensor, Tensor, "Map", "Map"], Tensor]


Map = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rules:
    """What stands in the slots of a pass; an empty one means the plain derivative."""

    relu: ReluRule | None = None
    pool: PoolRule | None = None
    linear: LinearRule | None = None

    def __bool__(self) -> bool:
        return bool(self.relu or self.pool or self.linear)

    def __str__(self) -> str:
        return " + ".join(repr(rule.name) for rule in (self.relu, self.pool, self.linear) if rule)


BACKPROP = ReluRule("backprop", lambda r, on: r * on)
DECONVNET = ReluRule("deconvnet", lambda r, on: r.clamp(min=0))
GUIDED = ReluRule("guided", lambda r, on: r.clamp(min=0) * on)


def _switches(r: Tensor, place: Tensor, size: int) -> Tensor:
    """Every window writes its value at its switch; where windows share one, the last in row order stays."""
    order = torch.arange(1, r.shape[-1] + 1, device=r.device).expand_as(place)
    last = torch.zeros(*r.shape[:-1], size, dtype=order.dtype, device=r.device)
    last.scatter_reduce_(-1, place, order, "amax")
    values = torch.cat([torch.zeros_like(r[..., :1]), r], -1)
    return values.gather(-1, last)


def _sums(r: Tensor, place: Tensor, size: int) -> Tensor:
    """Every window adds its value at its switch: the gradient."""
    return torch.zeros(*r.shape[:-1], size, dtype=r.dtype, device=r.device).scatter_add_(-1, place, r)


SWITCHES = PoolRule("switches", _switches)
SUMS = PoolRule("sums", _sums)


def _stable(z: Tensor, epsilon: float) -> Tensor:
    return z + torch.where(z >= 0, epsilon, -epsilon)


def epsilon_rule(epsilon: float = 1e-6) -> LinearRule:
    """LRP-epsilon (Bach et al. 2015, equation 58): R_i = x_i sum_j w_ij R_j / (z_j + epsilon sign z_j)."""

    def back(c: Tensor, x: Tensor, weight: Tensor, z: Tensor, call: Map, pull: Map) -> Tensor:
        return pull(weight, c * z / _stable(z, epsilon))

    return LinearRule(f"epsilon {epsilon:g}", back)


def _positive_share(c: Tensor, x: Tensor, weight: Tensor, z: Tensor, call: Map, pull: Map) -> Tensor:
    """Each output hands its relevance to its positive contributions, in proportion."""
    up, down = weight.clamp(min=0), weight.clamp(max=0)
    share = call(x.clamp(min=0), up) + call(x.clamp(max=0), down)
    s = torch.where(share > 0, c * z / share.clamp(min=torch.finfo(z.dtype).tiny), 0)
    return torch.where(x > 0, pull(up, s), pull(down, s))


# Excitation backprop (Zhang et al. 2016, arXiv 1608.00507) where inputs are not negative; LRP-alpha1-beta0 in general.
EXCITATION = LinearRule("excitation", _positive_share)
