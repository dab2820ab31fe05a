"""Read-outs: from one value per colour plane to one value per pixel."""

from collections.abc import Callable

from torch import Tensor

Readout = Callable[[Tensor], Tensor]


def norm(values: Tensor) -> Tensor:
    """[N, C, h, w] -> [N, h, w]: length over the colour planes (the lecture's norm of the gradient)."""
    return values.pow(2).sum(1).sqrt()


def maximum(values: Tensor) -> Tensor:
    """Largest magnitude over the colour planes (Simonyan et al. 2013, arXiv 1312.6034, section 3.1)."""
    return values.abs().amax(1)


def total(values: Tensor) -> Tensor:
    """Signed sum over the colour planes: contributions add up."""
    return values.sum(1)


def positive(values: Tensor) -> Tensor:
    """The positive part of the signed sum."""
    return values.sum(1).clamp(min=0)


READOUTS: dict[str, Readout] = {"norm": norm, "maximum": maximum, "total": total, "positive": positive}
