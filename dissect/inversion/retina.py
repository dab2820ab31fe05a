"""The retinal layer: sharp at the fovea, blurred in proportion to the distance from it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dissect.errors import SpecError
from dissect.inversion.constraints import blur


@dataclass(frozen=True)
class Retina:
    """Gaussian blur whose sigma is 0 up to `fovea` pixels from the gaze and grows by `slope` a pixel beyond.

    A stack of `levels` uniform blurs is mixed linearly in sigma, place by place. Every output pixel is a mean of input
    pixels (weights at least 0, of sum 1): linear, the identity at slope 0, and never beyond the range of the image.
    """

    fovea: float
    slope: float
    levels: int = 6

    def __post_init__(self) -> None:
        if self.fovea < 0 or self.slope < 0 or self.levels < 2:
            raise SpecError(
                "retina: expected fovea >= 0, slope >= 0 and levels >= 2, "
                f"found {self.fovea}, {self.slope} and {self.levels}"
            )

    def sigmas(self, height: int, width: int) -> list[float]:
        """Sigma of each level, 0 first; the last is reached only in the corner furthest from a gaze in the corner."""
        peak = self.slope * max(0.0, (height**2 + width**2) ** 0.5 - self.fovea)
        return [peak * (k / (self.levels - 1)) ** 2 for k in range(self.levels)]

    def sigma_at(self, height: int, width: int, gaze: Tensor) -> Tensor:
        """Sigma of every place for gaze [B, 2] (row, column in pixels), [B, 1, h, w]."""
        rows = torch.arange(height, dtype=gaze.dtype, device=gaze.device).view(1, -1, 1) - gaze[:, 0].view(-1, 1, 1)
        columns = torch.arange(width, dtype=gaze.dtype, device=gaze.device).view(1, 1, -1) - gaze[:, 1].view(-1, 1, 1)
        return (self.slope * (torch.sqrt(rows**2 + columns**2) - self.fovea).clamp(min=0))[:, None]

    def __call__(self, z: Tensor, gaze: Tensor) -> Tensor:
        """What the eye passes on of z [B, C, h, w], looking at gaze [B, 2]."""
        if self.slope == 0:
            return z
        height, width = z.shape[2:]
        levels = self.sigmas(height, width)
        sigma = self.sigma_at(height, width, gaze.to(z))
        needed = float(sigma.amax())
        seen = torch.zeros_like(z)
        for k, level in enumerate(levels):
            below = levels[k - 1] if k else None
            above = levels[k + 1] if k + 1 < len(levels) else None
            if below is not None and below >= needed:
                break
            weight = torch.ones_like(sigma)
            if below is not None:
                weight = torch.minimum(weight, ((sigma - below) / (level - below)).clamp(min=0))
            if above is not None:
                weight = torch.minimum(weight, ((above - sigma) / (above - level)).clamp(min=0))
            seen = seen + weight * blur(z, level)
        return seen
