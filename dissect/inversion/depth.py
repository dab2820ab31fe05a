"""Depth: which layers a sheet of reconstructions shows, and whether a figure grows with them."""

import math
from collections.abc import Sequence

import numpy as np
from torch import nn

from dissect.inversion.network import OUTPUT, Network


def blocks(network: Network) -> list[str]:
    """The layers of a depth sheet: the blocks two names deep, or single layers nearer to the root, by execution."""
    named = dict(network.module.named_modules())
    chosen = []
    for name in network.layers:
        depth = name.count(".")
        module = named.get(name)
        if name == OUTPUT and module is None:
            continue
        if module is None or isinstance(module, nn.Dropout | nn.Identity | nn.Flatten):
            continue
        nested = any(True for _ in module.children())
        if depth == 1 or (depth == 0 and not nested):
            chosen.append(name)
    return chosen or [OUTPUT]


def leaves(network: Network) -> list[str]:
    """Every layer without layers inside."""
    named = dict(network.module.named_modules())
    skip = (nn.Dropout, nn.Identity, nn.Flatten)
    return [
        name
        for name in network.layers
        if name in named and not any(True for _ in named[name].children()) and not isinstance(named[name], skip)
    ]


def rank_correlation(values: Sequence[float]) -> float:
    """Spearman's correlation of a sequence with its own order; ties share their mean rank."""
    array = np.asarray(values, dtype=np.float64)
    order = np.argsort(array, kind="stable")
    ranks = np.empty(len(array))
    ranks[order] = np.arange(len(array))
    for value in np.unique(array):
        ranks[array == value] = ranks[array == value].mean()
    place = np.arange(len(array), dtype=np.float64)
    ranks, place = ranks - ranks.mean(), place - place.mean()
    length = math.sqrt(float((ranks**2).sum() * (place**2).sum()))
    return float((ranks * place).sum() / length) if length else float("nan")
