"""RISE: how the score goes with what a random soft mask lets through (Petsiuk et al. 2018, arXiv 1806.07421)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dissect.attribution.gradients import Attribution, scores
from dissect.attribution.network import Network
from dissect.attribution.targets import Target
from dissect.attribution.watching import Watch, nobody
from dissect.errors import SpecError


def random_mask(height: int, width: int, cells: int, keep: float, generator: torch.Generator) -> Tensor:
    """One mask [height, width] in 0..1: `cells` x `cells` coins, enlarged bilinearly and shifted by less than a
    cell."""
    coins = (torch.rand(cells, cells, generator=generator, dtype=torch.float64) < keep).to(torch.float64)
    cell = (-(-height // cells), -(-width // cells))
    large = F.interpolate(
        coins[None, None], size=((cells + 1) * cell[0], (cells + 1) * cell[1]), mode="bilinear", align_corners=False
    )[0, 0]
    top = int(torch.randint(0, cell[0], (), generator=generator))
    left = int(torch.randint(0, cell[1], (), generator=generator))
    return large[top : top + height, left : left + width]


def rise(
    network: Network,
    x: Tensor,
    target: Target,
    masks: int = 2000,
    cells: int = 7,
    keep: float = 0.5,
    seed: int = 0,
    batch: int = 32,
    watch: Watch = nobody,
) -> Attribution:
    """values [N, 1, H, W] = sum of score x mask / (masks x keep), equation 6 of the paper; hidden pixels show the mean
    colour. extra["standard_error"] [N, H, W] says how far `masks` draws can be trusted.

    The masks depend on the seed alone, not on the batch or the image. watch: told the masks that are done.
    """
    if not 0 < keep < 1 or masks < 1 or cells < 1:
        raise SpecError(
            f"RISE with {masks} masks of {cells} cells kept with {keep}: expected at least 1, 1, and a share in 0..1"
        )
    x = network.check_input(x)
    target.check(network, x)
    height, width = x.shape[2:]
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(x), height, width, dtype=torch.float64)
    square = torch.zeros_like(total)
    for first in range(0, masks, batch):
        count = min(batch, masks - first)
        part = torch.stack([random_mask(height, width, cells, keep, generator) for _ in range(count)])
        for i in range(len(x)):
            values = scores(network, x[i] * part.to(x)[:, None], target).to("cpu", torch.float64)
            total[i] += torch.einsum("k,khw->hw", values, part)
            square[i] += torch.einsum("k,khw->hw", values**2, part**2)
        watch(first + count, masks)
    mean = total / masks
    error = ((square / masks - mean**2).clamp(min=0) / masks).sqrt() / keep
    maps = (mean / keep).to(x.dtype)
    method = {"name": "rise", "masks": masks, "cells": cells, "keep": keep, "seed": seed}
    return Attribution(
        method, target.title, maps[:, None], maps, scores(network, x, target), extra={"standard_error": error}
    )
