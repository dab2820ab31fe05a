"""Sensitivity-n: does the sum of a map over random places go with the drop of the score without them?"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dissect.attribution.gradients import scores
from dissect.attribution.network import Network
from dissect.attribution.ranking import pearson
from dissect.attribution.targets import Target
from dissect.errors import SpecError


def sensitivity_n(
    network: Network,
    x: Tensor,
    heat: Tensor,
    target: Target,
    sizes: Sequence[int],
    draws: int = 64,
    cell: int = 1,
    seed: int = 0,
    batch: int = 32,
) -> list[float]:
    """Correlation for each n of `sizes` (Ancona et al. 2018, arXiv 1711.06104, section 4): random sets of n cells of
    cell x cell pixels are set to the mean colour. 1 for gradient x input on a linear network, for every n; 0 where
    the map or the drops are constant. x [1, C, H, W], heat [H, W].
    """
    x = network.check_input(x)
    height, width = heat.shape
    if heat.shape != x.shape[2:]:
        raise SpecError(f"map {list(heat.shape)} and image {list(x.shape[2:])}: expected one size")
    rows, columns = -(-height // cell), -(-width // cell)
    wrong = [n for n in sizes if not 1 <= n <= rows * columns]
    if wrong:
        raise SpecError(f"sensitivity-n with n = {wrong[0]}: the image has {rows * columns} cells of {cell} pixels")
    full = float(scores(network, x, target)[0])
    generator = torch.Generator().manual_seed(seed)
    flat = heat.detach().to("cpu", torch.float64)
    result = []
    for n in sizes:
        sums, drops = [], []
        for first in range(0, draws, batch):
            count = min(batch, draws - first)
            chosen = torch.zeros(count, rows * columns)
            for i in range(count):
                chosen[i, torch.randperm(rows * columns, generator=generator)[:n]] = 1
            grid = F.interpolate(chosen.view(count, 1, rows, columns), scale_factor=cell, mode="nearest")
            hidden = grid[:, 0, :height, :width] > 0.5
            sums.append((hidden * flat).sum((1, 2)))
            masked = torch.where(hidden[:, None].to(x.device), 0, x)
            drops.append(full - scores(network, masked, target).to("cpu", torch.float64))
        result.append(pearson(torch.cat(sums), torch.cat(drops)))
    return result
