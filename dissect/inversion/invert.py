"""Inversion: what picture has this code? (Mahendran & Vedaldi, CVPR 2015 and IJCV 2016.)

The papers' two measures of error are kept apart by name. All restarts of all images go through the
network in one batch.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dissect.errors import SpecError
from dissect.inversion import draws
from dissect.inversion.engine import Watcher, batches, joined, run
from dissect.inversion.network import Network
from dissect.inversion.preimages import Recipe, plan, starts, typical
from dissect.inversion.transforms import centre


@dataclass
class Inversion:
    """One layer. images z [N, R, C, h, w]; errors [N, R] as ratios of norms (IJCV'16 convention).

    spread [N]: mean distance between restarts over the norm of the original. pairwise: mean squared distance over all
    pairs of the N codes, diagonal included, by which CVPR'15 divides; None for one image.
    """

    layer: str
    images: Tensor
    feature_error: np.ndarray
    image_error: np.ndarray
    squared_error: np.ndarray
    spread: np.ndarray
    pairwise: float | None
    energy: np.ndarray
    stopped: list[str | None]
    seconds: float
    steps: int
    parts: dict[str, object]

    def summary(self) -> dict[str, Any]:
        """Both conventions, each under its name; the half-widths are 1.96 standard errors over the images."""
        best = self.feature_error.argmin(1)
        rows = np.arange(len(best))
        return {
            "layer": self.layer,
            "feature_error": _mean(self.feature_error),
            "feature_error_se196": _half_width(self.feature_error),
            "image_error": _mean(self.image_error),
            "image_error_se196": _half_width(self.image_error),
            "feature_error_squared": _mean(self.feature_error**2),
            "feature_error_best": float(self.feature_error[rows, best].mean()),
            "cvpr15_error": None if not self.pairwise else float(np.nanmean(self.squared_error) / self.pairwise),
            "restart_spread": None if self.images.shape[1] < 2 else _mean(self.spread),
            "worst_feature_error": float(np.nanmax(self.feature_error)),
            "stopped": sum(reason is not None for reason in self.stopped),
            "steps": self.steps,
            "seconds": self.seconds,
        }


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values))


def _half_width(values: np.ndarray) -> float | None:
    images = values.reshape(len(values), -1).mean(1)
    return None if len(images) < 2 else float(1.96 * images.std(ddof=1) / math.sqrt(len(images)))


def _norms(z: Tensor) -> Tensor:
    return z.double().flatten(1).norm(dim=1)


def pairwise_distance(codes: Tensor) -> float | None:
    """Mean squared distance over all ordered pairs of N codes, the N zeros of the diagonal included (CVPR'15)."""
    rows = codes.double().flatten(1)
    if len(rows) < 2:
        return None
    # mean_ij |a_i - a_j|^2 = 2 (mean |a|^2 - |mean a|^2), measured about the mean for accuracy.
    centred = rows - rows.mean(0)
    return float(2 * centred.square().sum(1).mean())


def invert(
    network: Network,
    originals: Tensor,
    layer: str,
    recipe: Recipe,
    state_file: Path | None = None,
    identity: object = None,
    watch: Watcher | None = None,
    batch: int = 32,
) -> Inversion:
    """Invert the codes of `originals` z [N, C, h, w] at one layer, recipe.restarts times each, `batch` pictures at
    once."""
    if tuple(originals.shape[2:]) != network.size:
        raise SpecError(f"images are {list(originals.shape[2:])}, {network.name} was set up for {list(network.size)}")
    originals = originals.to(network.device, network.dtype)
    codes = network.codes(originals, layer)
    repeated = codes.repeat_interleave(recipe.restarts, 0)
    seeds = draws.seeds(recipe.seed, len(repeated))
    scale = typical(originals, recipe)
    outcomes = []
    at_once = max(1, batch // starts(network, layer, recipe))
    for part, file in batches(len(repeated), at_once, state_file):
        first = originals.repeat_interleave(recipe.restarts, 0)[part] if recipe.caricature else None
        task = plan(network, layer, recipe, repeated[part], seeds[part], scale, first)
        outcomes.append(run(task, file, [identity, layer, repr(recipe), part.start], watch=watch))
    outcome = joined(outcomes)
    images = centre(outcome.images, *network.size)
    found = network.codes(images, layer)
    difference = _norms(found - repeated)
    several = (len(originals), recipe.restarts)
    grid = images.unflatten(0, several)
    return Inversion(
        layer,
        grid.cpu(),
        (difference / _norms(repeated)).view(several).cpu().numpy(),
        (_norms(images - originals.repeat_interleave(recipe.restarts, 0)).view(several) / _norms(originals)[:, None])
        .cpu()
        .numpy(),
        difference.square().view(several).cpu().numpy(),
        (restart_distance(grid) / _norms(originals)).cpu().numpy(),
        pairwise_distance(codes),
        outcome.total,
        outcome.stopped,
        outcome.seconds,
        len(outcome.total),
        outcome.parts,
    )


def restart_distance(images: Tensor) -> Tensor:
    """Mean distance between the R restarts of each image, [N, R, ...] -> [N]; 0 for one restart."""
    rows = images.double().flatten(2)
    distance = torch.cdist(rows, rows)
    count = rows.shape[1]
    return distance.sum((1, 2)) / max(1, count * (count - 1))
