"""Where a gradient is taken: at the image, along a line from a baseline, or around the image. Each yields images."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Points = Callable[[Tensor, Tensor], Iterator[Tensor]]  # (image, baseline) -> images to average over


def at_image(x: Tensor, baseline: Tensor) -> Iterator[Tensor]:
    """The image alone."""
    yield x


def on_line(steps: int) -> Points:
    """Midpoints of `steps` equal pieces of the way from the baseline (Sundararajan et al. 2017, arXiv 1703.01365)."""

    def points(x: Tensor, baseline: Tensor) -> Iterator[Tensor]:
        for step in range(steps):
            yield baseline + (x - baseline) * ((step + 0.5) / steps)

    return points


def around(draws: int, spread: float = 0.15, seed: int = 0) -> Points:
    """`draws` noisy copies; deviation = spread x (max - min) of each image (Smilkov et al. 2017, arXiv 1706.03825).

    The noise of a draw is the same for every image, so a map depends on no other image of its batch.
    """

    def points(x: Tensor, baseline: Tensor) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        flat = x.flatten(1)
        width = (flat.amax(1) - flat.amin(1)).mul(spread).view(-1, 1, 1, 1)
        for _ in range(draws):
            noise = torch.randn(x.shape[1:], generator=generator, dtype=torch.float64).to(x.device, x.dtype)
            yield x + noise * width

    return points
