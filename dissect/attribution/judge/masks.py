"""Scores of a map against a mask of the right place."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dissect.errors import SpecError

TOLERANCE = 15  # pixels, strictly less: the pointing game's usual one (Zhang et al. 2016)


def _checked(heat: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    if heat.dim() != 2 or heat.shape != mask.shape or mask.dtype != torch.bool:
        raise SpecError(
            f"map {list(heat.shape)} and mask {list(mask.shape)} {mask.dtype}: expected two [H, W], the mask bool"
        )
    if not bool(mask.any()):
        raise SpecError("the mask is empty: no place would be right")
    heat = heat.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(heat).all()):
        raise SpecError("the map holds NaN or Inf")
    return heat, mask.cpu()


def widened(mask: Tensor, tolerance: float) -> Tensor:
    """The places less than `tolerance` pixels away from the mask; the mask itself for 0."""
    if tolerance <= 0:
        return mask
    reach = int(-(-tolerance // 1)) - 1 if tolerance == int(tolerance) else int(tolerance)
    if reach == 0:
        return mask
    offsets = torch.arange(-reach, reach + 1)
    disc = (offsets[:, None] ** 2 + offsets[None, :] ** 2 < tolerance**2).to(torch.float32)
    return F.conv2d(mask[None, None].to(torch.float32), disc[None, None], padding=reach)[0, 0] > 0.5


def pointing(heat: Tensor, mask: Tensor, tolerance: float = TOLERANCE) -> float:
    """Whether the map's highest place lies in the mask or less than `tolerance` pixels beside it.

    Where several places are highest, the share of them that hit: what picking one at random would score. So a constant
    map gets the area of the widened mask, and never a hit for nothing.
    """
    heat, mask = _checked(heat, mask)
    top = heat == heat.max()
    return float(widened(mask, tolerance)[top].to(torch.float64).mean())


def energy(heat: Tensor, mask: Tensor) -> float:
    """Share of the positive part of the map inside the mask (Wang et al. 2020, Score-CAM).

    A map without a positive place says nothing and scores as a constant one: the area of the mask.
    """
    heat, mask = _checked(heat, mask)
    positive = heat.clamp(min=0)
    total = float(positive.sum())
    return float(positive[mask].sum()) / total if total > 0 else float(mask.to(torch.float64).mean())
