"""Rank correlation with ties, the measure of agreement between maps."""

import torch
from torch import Tensor


def ranks(values: Tensor) -> Tensor:
    """Ranks [n] from 0; equal values share the mean of theirs. float64."""
    flat = values.detach().flatten().to("cpu", torch.float64)
    order = flat.argsort(stable=True)
    _, group, counts = torch.unique_consecutive(flat[order], return_inverse=True, return_counts=True)
    ends = counts.cumsum(0)
    mean = (ends - counts + ends - 1).to(torch.float64) / 2
    result = torch.empty_like(flat)
    result[order] = mean[group]
    return result


def pearson(a: Tensor, b: Tensor) -> float:
    """Correlation of two vectors; 0 where one of them is constant, as it orders nothing."""
    a = a.detach().flatten().to("cpu", torch.float64)
    b = b.detach().flatten().to("cpu", torch.float64)
    a, b = a - a.mean(), b - b.mean()
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length > 0 else 0.0


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's: the correlation of the ranks."""
    return pearson(ranks(a), ranks(b))
