"""Random numbers without a state: each is a hash of (seed of the sample, step, number of the draw).

A step can therefore be repeated or resumed alone, and a sample draws the same whatever stands beside it in the batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalising mix of splitmix64 on uint64 [...] (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _fold(*parts: np.ndarray | int) -> np.ndarray:
    """One uint64 hash out of several integers, elementwise."""
    state: np.ndarray = np.zeros(1, np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = _mix(state + np.asarray(part).astype(np.uint64) + _GAMMA)
    return state


def seeds(seed: int, count: int, first: int = 0) -> np.ndarray:
    """uint64 [count]: the seeds of samples `first` and on of a run."""
    return _fold(seed & (2**63 - 1), np.arange(first, first + count))


def others(sample_seeds: np.ndarray, number: int) -> np.ndarray:
    """Seeds of other samples, one for each and for every number."""
    return _fold(sample_seeds, number, 1)


class Draws:
    """The draws of one step for a batch of samples; every call is the next draw, one number a sample."""

    def __init__(self, sample_seeds: np.ndarray, step: int) -> None:
        self.step = step
        self._base = _fold(sample_seeds, step)
        self._drawn = 0

    def __len__(self) -> int:
        return len(self._base)

    def _next(self) -> np.ndarray:
        self._drawn += 1
        return _fold(self._base, self._drawn)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """float64 [B] in [low, high)."""
        return low + (self._next() >> np.uint64(11)).astype(np.float64) * (2.0**-53 * (high - low))

    def integers(self, low: int, high: int) -> np.ndarray:
        """int64 [B] in low … high, both included."""
        return low + np.minimum((self.uniform() * (high - low + 1)).astype(np.int64), high - low)

    def normal(self, like: Tensor) -> Tensor:
        """Standard Gaussian noise shaped as `like` [B, ...], each sample from its own draw."""
        return normal(self._next(), tuple(like.shape[1:]), like.dtype).to(like.device)

    def choice(self, values: Sequence[float]) -> np.ndarray:
        return np.asarray(values, dtype=np.float64)[self.integers(0, len(values) - 1)]


def normal(sample_seeds: np.ndarray, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard Gaussian noise [B, *shape], each sample from its own seed."""
    return torch.stack(
        [
            torch.randn(shape, generator=torch.Generator().manual_seed(int(seed >> np.uint64(1))), dtype=dtype)
            for seed in sample_seeds
        ]
    )


def uniform(sample_seeds: np.ndarray, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Noise uniform in [-1, 1), [B, *shape], each sample from its own seed."""
    return torch.stack(
        [
            torch.rand(shape, generator=torch.Generator().manual_seed(int(seed >> np.uint64(1))), dtype=dtype) * 2 - 1
            for seed in sample_seeds
        ]
    )
