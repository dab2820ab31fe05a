"""Little networks with every spelling of ReLU and every structure that has broken a library, in float64."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.attribution.network import Network


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights in float64, batch norms with statistics, eval mode."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.5 if parameter.dim() < 2 else (2 / parameter[0].numel()) ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.copy_(torch.randn(part.num_features, generator=generator) * 0.3)
                part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
    return module.requires_grad_(False)


def image(seed: int = 1, side: int = 12, count: int = 1) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wrap(module: nn.Module) -> Network:
    return Network(module, (0.5,) * 3, (0.25,) * 3)


class Spelt(nn.Module):
    """conv, ReLU, conv, ReLU, mean, linear, with the ReLU as given: f(module, x)."""

    def __init__(self, relu: str) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)
        self.last = nn.Linear(5, 4)
        self.spelling = relu
        self.plain, self.in_place, self.threshold = nn.ReLU(), nn.ReLU(inplace=True), nn.Threshold(0, 0)

    def relu(self, x: Tensor) -> Tensor:
        return {
            "module": lambda: self.plain(x),
            "in-place module": lambda: self.in_place(x),
            "F.relu": lambda: F.relu(x),
            "F.relu inplace": lambda: F.relu(x, inplace=True),
            "F.relu_": lambda: F.relu_(x),
            "torch.relu": lambda: torch.relu(x),
            "torch.relu_": lambda: torch.relu_(x),
            "method": x.relu,
            "method_": x.relu_,
            "clamp": lambda: x.clamp(min=0),
            "clamp_": lambda: x.clamp_(0),
            "clamp_min": lambda: torch.clamp_min(x, 0.0),
            "threshold module": lambda: self.threshold(x),
            "F.threshold": lambda: F.threshold(x, 0, 0),
            "maximum": lambda: torch.maximum(x, torch.zeros((), dtype=x.dtype)),
            "maximum turned": lambda: torch.maximum(torch.zeros((), dtype=x.dtype), x),
            "max": lambda: torch.max(x, torch.zeros_like(x)),
        }[self.spelling]()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.one(x))
        x = self.relu(self.two(x))
        return self.last(x.mean((2, 3)))


SPELLINGS = (
    "module", "in-place module", "F.relu", "F.relu inplace", "F.relu_", "torch.relu", "torch.relu_", "method",
    "method_", "clamp", "clamp_", "clamp_min", "threshold module", "F.threshold", "maximum", "maximum turned", "max",
)  # fmt: skip


class PreActivation(nn.Module):
    """x + conv(relu(x)): what enters the ReLU has a second reader."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3),
        )
        self.relu, self.last = nn.ReLU(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x = x + self.two(self.relu(x))
        x = x + F.pad(self.three(self.relu(x)), (1, 1, 1, 1))
        return self.last(F.relu(x).mean((2, 3)))


class InPlaceShared(nn.Module):
    """An in-place ReLU whose input is read again afterwards: the reader gets the rectified values."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        y = self.two(self.relu(x))
        y = y + x  # x has been rectified in place
        return self.last(self.relu(y).mean((2, 3)))


class Residual(nn.Module):
    """Blocks as in ResNet: batch norms, stride, projected and plain shortcuts, one reused in-place ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.a, self.an = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6)
        self.b, self.bn = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.shortcut = nn.Conv2d(4, 6, 1, stride=2)
        self.c = nn.Conv2d(6, 6, 3, padding=1)
        self.relu, self.pool, self.last = nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        y = self.bn(self.b(self.relu(self.an(self.a(x)))))
        y += self.shortcut(x)
        y = self.relu(y)
        y = self.relu(self.c(y) + y)
        return self.last(torch.flatten(self.pool(y), 1))


class Dense(nn.Module):
    """Concatenations as in DenseNet and Inception: branches of unlike reach, functional ReLU and pools."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 3, 1),
            nn.Conv2d(4, 3, 5, padding=2),
        )
        self.four, self.last = nn.Conv2d(10, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x))
        pooled = F.max_pool2d(x, 3, 1, 1)
        x = torch.cat([self.two(x).relu(), torch.relu(self.three(x)), pooled], 1)
        x = F.avg_pool2d(F.relu(self.four(x)), 2)
        return self.last(F.adaptive_avg_pool2d(x, 1).flatten(1))


STRUCTURES = {"pre-activation": PreActivation, "in-place shared": InPlaceShared, "residual": Residual, "dense": Dense}
