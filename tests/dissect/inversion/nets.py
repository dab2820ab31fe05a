"""Networks of a few units with known answers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.inversion.network import Network
from dissect.inversion.pixels import InputRange

RANGE = InputRange((0.48, 0.45, 0.41), (0.23, 0.22, 0.24))
PLAIN = InputRange((0.5,), (0.25,))


class Small(nn.Module):
    """Three convolutions, one of them followed in place, a shared functional ReLU, a linear layer."""

    def __init__(self, planes: int = 3, classes: int = 5) -> None:
        super().__init__()
        self.one = nn.Conv2d(planes, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.three = nn.Conv2d(12, 16, 3, stride=2, padding=1)
        self.out = nn.Linear(16, classes)
        self.reached = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.two(F.relu(self.one(x))))
        self.reached += 1
        return self.out(F.relu(self.three(x)).mean((2, 3)))


def small(
    size: tuple[int, int] = (16, 16), classes: int = 5, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Network:
    torch.manual_seed(seed)
    return Network(Small(3, classes).to(dtype), RANGE, size, f"small {seed}")


def linear(classes: int = 2, side: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64) -> Network:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * side * side, classes)).to(dtype)
    return Network(module, RANGE, (side, side), "linear")


def grey_photos(count: int, network: Network, seed: int = 0, low: float = 0.2, high: float = 0.8) -> Tensor:
    """Smooth random pictures z inside the range."""
    noise = torch.rand(
        count, network.pixels.planes, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=network.dtype
    )
    smooth = F.interpolate(noise, size=network.size, mode="bicubic", align_corners=False).clamp(0, 1)
    return network.pixels.from_pixels(low + (high - low) * smooth)
