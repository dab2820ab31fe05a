"""What is asked of the code: every objective gives one energy a sample, to be made small."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from dissect.errors import SpecError
from dissect.inversion.draws import Draws
from dissect.inversion.network import Network
from dissect.inversion.relus import LeakyRelus, Relus, ReluSpreads, RoundedRelus


class Objective(Protocol):
    """Transformed images [B, C, h, w] -> energies [B]."""

    def __call__(self, z: Tensor, draws: Draws) -> Tensor: ...


class Score(Protocol):
    """Codes of one layer [B, ...] -> energies [B]."""

    def __call__(self, code: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class At:
    """A score of the code of one layer; the network runs no further. ReLUs leak by `slope`, for good or for so many
    first steps: enough to wake a unit that the start leaves silent, whose gradient is zero. Or they are rounded off
    over `widths`, one tensor [B] for each ReLU of the pass."""

    network: Network
    layer: str
    score: Score
    slope: float | None = None
    leaking: int | None = None
    widths: tuple[Tensor, ...] | None = None

    def __call__(self, z: Tensor, draws: Draws) -> Tensor:
        return self.score(self.network.features(z, [self.layer], self._relus(draws.step))[self.layer])

    def _relus(self, step: int) -> Relus | None:
        if self.widths is not None:
            return RoundedRelus(self.widths)
        if self.slope is None or (self.leaking is not None and step >= self.leaking):
            return None
        return LeakyRelus(self.slope)

    def rounded(self, z: Tensor, softness: float) -> "At":
        """The same with every ReLU rounded off over so many standard deviations of what comes to it from z [B, ...]."""
        seen = ReluSpreads()
        with torch.no_grad():
            self.network.features(z, [self.layer], seen)
        return replace(self, widths=tuple(softness * spread for spread in seen.spreads))


def _rows(code: Tensor) -> Tensor:
    return code.flatten(1)


@dataclass(frozen=True)
class CodeError:
    """weight x ||phi - phi_0||^2 / ||phi_0||^2 over the part of the code that `mask` keeps (Mahendran & Vedaldi).

    target [B, ...]; mask broadcasts to one code. Raises SpecError for a target code that is all zero.
    """

    target: Tensor
    weight: float = 1.0
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if bool((self._norm() == 0).any()):
            raise SpecError("the code to invert is zero everywhere: choose another layer or another part of it")

    def _part(self, code: Tensor) -> Tensor:
        return code if self.mask is None else code * self.mask

    def _norm(self) -> Tensor:
        return _rows(self._part(self.target)).square().sum(1)

    def __call__(self, code: Tensor) -> Tensor:
        return self.weight * _rows(self.difference(code)).square().sum(1) / self._norm()

    def eased(self, share: float, times: int) -> "CodeError":
        """A share of the weight, and each target for so many samples in a row."""
        return replace(self, weight=self.weight * share, target=self.target.repeat_interleave(times, 0))

    def difference(self, code: Tensor) -> Tensor:
        """phi - phi_0 [B, ...], 0 outside the part."""
        return self._part(code - self.target)


@dataclass(frozen=True)
class Caricature:
    """-weight <phi_0, phi> / ||phi_0||^2: more of what the code already says (IJCV'16, section 6)."""

    target: Tensor
    weight: float = 1.0

    def __call__(self, code: Tensor) -> Tensor:
        norm = _rows(self.target).square().sum(1)
        return -self.weight * (_rows(code) * _rows(self.target)).sum(1) / norm


def at_place(code: Tensor, where: str) -> Tensor:
    """Units of a code, [B, U]: of a map [B, U, h, w] the `mean`, `centre` or `max`; of tokens [B, T, U] the mean."""
    if code.dim() == 2:
        return code
    if code.dim() == 3:
        return code.mean(1)
    if where == "mean":
        return code.mean((2, 3))
    if where == "max":
        return code.amax((2, 3))
    return code[:, :, code.shape[2] // 2, code.shape[3] // 2]


@dataclass(frozen=True)
class Along:
    """-<w, phi> of directions [B, U] in the space of units; a unit is the direction that is 1 there."""

    directions: Tensor
    where: str = "mean"
    weight: float = 1.0

    def __call__(self, code: Tensor) -> Tensor:
        return -self.weight * (at_place(code, self.where) * self.directions.to(code)).sum(1)


def one_hot(units: Sequence[int], count: int) -> Tensor:
    """Directions [len(units), count] of single units."""
    return F.one_hot(torch.tensor(list(units)), count).float()


@dataclass(frozen=True)
class LogProbability:
    """-weight log of the summed probability of a set of classes: members is 0/1, [B, classes]; weight -1 leads away."""

    members: Tensor
    weight: float = 1.0

    def __call__(self, code: Tensor) -> Tensor:
        hidden = self.members.to(code.device) == 0
        return -self.weight * torch.logsumexp(F.log_softmax(code, 1).masked_fill(hidden, -torch.inf), 1)


@dataclass(frozen=True)
class HalfNorm:
    """-||phi||^2 / 2: whatever the layer sees, more of it (DeepDream)."""

    def __call__(self, code: Tensor) -> Tensor:
        return -_rows(code).square().sum(1) / 2


@dataclass(frozen=True)
class Guided:
    """Each place is pulled to the feature of a guide image that answers it most: -sum <phi_p, best guide of p>.

    guide [U, G], the codes of the guide's G places.
    """

    guide: Tensor

    def __call__(self, code: Tensor) -> Tensor:
        if code.dim() != 4:
            raise SpecError("a guided dream needs a layer with maps: choose a convolutional layer")
        places = code.flatten(2)
        best = torch.einsum("bup,ug->bpg", places.detach(), self.guide).argmax(2)
        return -(places * self.guide[:, best].transpose(0, 1)).sum((1, 2))
