"""The network that ships with the package: five small convolutions trained on classes of synthetic pictures.

It has seen images and what they show as a whole (`broden.synthetic` facts), never a mask. How it was trained:
`dissect.models.demo_training`; what came out: `dissect/assets/demo.json`.
"""

from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn

from broden.colours import NAMES as COLOURS
from broden.synthetic.patterns import TEXTURES
from broden.synthetic.vocabulary import SCENES, THINGS
from dissect.models import safetensors_file

ASSET = Path(str(files("dissect"))) / "assets" / "demo.safetensors"
CARD = ASSET.with_suffix(".json")
SIZE = 128
"""Side of the pictures it was trained on, in pixels."""
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
LAYER = "conv5"
"""The layer that the demo dissects: 128 units, 16 x 16 maps."""

HEADS: dict[str, tuple[str, ...]] = {
    "object": ("nothing", *THINGS),
    "texture": ("nothing", *TEXTURES),
    "scene": ("nothing", *SCENES),
    "colour": COLOURS,
}
"""Questions that the network answers, each with its own softmax: the classes of each, in the order of the logits."""
CLASSES = tuple(f"{head}: {name}" for head, names in HEADS.items() for name in names)


def spans() -> dict[str, slice]:
    """Where the logits of each head stand."""
    found, first = {}, 0
    for head, names in HEADS.items():
        found[head] = slice(first, first + len(names))
        first += len(names)
    return found


def _block(units_in: int, units: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(units_in, units, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(units), nn.ReLU()
    )


class DemoNet(nn.Module):
    """Images [N, 3, S, S] -> logits of all heads [N, classes]. Layers conv1 (S/2) ... conv5 (S/8) have simple names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _block(3, 24, 5, 2)
        self.conv2 = _block(24, 48, 3, 2)
        self.conv3 = _block(48, 64, 3)
        self.conv4 = _block(64, 96, 3, 2)
        self.conv5 = _block(96, 128, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(128, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv5(self.conv4(self.conv3(self.conv2(self.conv1(x)))))
        return self.head(self.dropout(self.pool(x).flatten(1)))


def build() -> DemoNet:
    """The architecture with random weights from torch's own state."""
    return DemoNet()


def untrained(seed: int = 0) -> DemoNet:
    """The architecture as training finds it, in eval mode; torch's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()


def trained() -> DemoNet:
    """The network of the package, in eval mode. Raises SpecError where the file is missing or not the right one."""
    network = untrained()
    network.load_state_dict(safetensors_file.read(ASSET), strict=True)
    return network
