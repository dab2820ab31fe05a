"""What is in a synthetic picture: regions painted over each other, each with its labels, colour and fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from PIL import Image, ImageDraw

from broden.synthetic.patterns import MATERIALS, PLAIN

Colour = tuple[int, int, int]
Point = tuple[float, float]

PALETTE: dict[str, Colour] = {
    "red": (200, 36, 40), "orange": (240, 140, 40), "yellow": (236, 210, 60), "green": (60, 150, 60),
    "blue": (50, 90, 190), "purple": (130, 60, 160), "pink": (244, 150, 180), "brown": (120, 72, 40),
    "white": (238, 238, 236), "grey": (132, 132, 134), "black": (28, 28, 30),
}  # fmt: skip
MATERIAL_COLOURS: dict[str, Colour] = {
    "brick": (165, 75, 55), "wood": (140, 95, 55), "metal": (150, 155, 160), "glass": (130, 175, 205),
    "fabric": (150, 60, 90), "foliage": (60, 125, 45), "stone": (128, 124, 118), "water": (60, 110, 170),
    "skin": (225, 172, 140), "tile": (170, 85, 60), "paper": (235, 230, 215), "sand": (222, 200, 145),
}  # fmt: skip


@dataclass(slots=True)
class Region:
    """One painted shape. `parts` are the labels of part plane 1, 2, ...; None = unlabelled there."""

    colour: Colour
    fill: int = PLAIN
    thing: str | None = None
    parts: tuple[str | None, ...] = ()
    material: str | None = None


@dataclass
class Canvas:
    """Regions and the shapes that carry them; coordinates in units of the picture's side, 0..1."""

    size: int
    random: Callable[[], float]
    regions: list[Region] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.map = Image.new("L", (self.size, self.size), 0)
        self._draw = ImageDraw.Draw(self.map)

    def region(self, region: Region) -> int:
        """Register a region; its number paints it."""
        self.regions.append(region)
        return len(self.regions) - 1

    def box(self, number: int, left: float, top: float, right: float, bottom: float) -> None:
        """Paint a rectangle."""
        self._draw.rectangle(self._corners(left, top, right, bottom), fill=number)

    def oval(self, number: int, left: float, top: float, right: float, bottom: float) -> None:
        """Paint an ellipse."""
        self._draw.ellipse(self._corners(left, top, right, bottom), fill=number)

    def polygon(self, number: int, *points: Point) -> None:
        """Paint a polygon."""
        # Whole coordinates: Pillow's rounding of fractions may differ between versions.
        self._draw.polygon([(int(x * self.size), int(y * self.size)) for x, y in points], fill=number)

    def _corners(self, left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int]:
        x, y = int(left * self.size), int(top * self.size)
        return x, y, max(x, int(right * self.size) - 1), max(y, int(bottom * self.size) - 1)

    def shade(self, colour: Colour, spread: int = 18) -> Colour:
        """A colour near `colour`."""
        move = int(self.random() * (2 * spread + 1)) - spread
        red, green, blue = (min(255, max(0, value + move)) for value in colour)
        return red, green, blue


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a thing stands: left, top, width, height in 0..1; maps its own unit square to the picture."""

    left: float
    top: float
    width: float
    height: float

    def x(self, value: float) -> float:
        """Horizontal place of `value` 0..1 of the frame."""
        return self.left + value * self.width

    def y(self, value: float) -> float:
        """Vertical place of `value` 0..1 of the frame."""
        return self.top + value * self.height

    def corners(self, left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        """A box inside the frame."""
        return self.x(left), self.y(top), self.x(right), self.y(bottom)


def material_fill(name: str | None) -> int:
    """Number of a material's fill in the bank."""
    return PLAIN if name is None else MATERIALS.index(name)


def seeded(seed: int, *key: int) -> Random:
    """A generator for one purpose. Only `.random()` of it is used: that sequence is fixed by Python for good."""
    value = seed
    for item in key:
        value = value * 1_000_003 + item + 1
    return Random(value)
