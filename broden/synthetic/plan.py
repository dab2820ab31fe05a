"""From a number to a picture: which source, scene, things and colours image i has, and its region map."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import NamedTuple

from broden.synthetic.patterns import MATERIALS, TEXTURES
from broden.synthetic.scenery import MATERIAL_COLOURS, PALETTE, Canvas, Colour, Frame, Region, material_fill, seeded
from broden.synthetic.things import PAINTERS, SHAPES, Brush, hanging_window, standing_door
from broden.synthetic.vocabulary import KINDS, PARTS, SCENES, THINGS, Vocabulary, variant_name

COLOURS = tuple(PALETTE)

# Sources, as shares of one hundred images.
SOURCES = (("scenes", 55), ("objects", 14), ("textures", 14), ("materials", 14), ("plain", 3))


class Facts(NamedTuple):
    """What a classifier may be told about a whole image. Empty strings where it has none.

    `object`, `texture` and `scene` are kinds (no variants); `colour` is the palette name of the main thing, of the
    first colour of a texture, or of nothing.
    """

    number: int
    source: str
    object: str
    texture: str
    scene: str
    colour: str


@dataclass(frozen=True, slots=True)
class Backdrop:
    """A kind of scene: stuff above and below the horizon with their colours and materials."""

    upper: tuple[str, Colour, str | None]
    lower: tuple[str, Colour, str | None]
    horizon: float


BACKDROPS: dict[str, Backdrop] = {
    "street": Backdrop(("sky", (150, 180, 215), None), ("road", (92, 92, 96), "stone"), 0.55),
    "beach": Backdrop(("sky", (135, 190, 240), None), ("sand", (226, 205, 150), "sand"), 0.5),
    "field": Backdrop(("sky", (165, 205, 240), None), ("grass", (110, 165, 60), "foliage"), 0.4),
    "bedroom": Backdrop(("wall", (225, 200, 205), "paper"), ("floor", (150, 105, 65), "wood"), 0.68),
    "desert": Backdrop(("sky", (235, 190, 130), None), ("sand", (215, 155, 85), "sand"), 0.45),
    "sea": Backdrop(("sky", (190, 210, 225), None), ("water", (40, 95, 150), "water"), 0.42),
    "night": Backdrop(("sky", (16, 18, 44), None), ("road", (42, 42, 48), "stone"), 0.6),
    "snowfield": Backdrop(("sky", (190, 200, 210), None), ("snow", (240, 242, 246), None), 0.5),
    "park": Backdrop(("sky", (120, 175, 235), None), ("grass", (60, 125, 45), "foliage"), 0.62),
    "corridor": Backdrop(("wall", (205, 205, 195), "brick"), ("floor", (170, 170, 170), "tile"), 0.72),
}


class Draw:
    """Choices of one image, each a function of a single stream of numbers."""

    def __init__(self, source: Random) -> None:
        self.random = source.random

    def below(self, bound: int) -> int:
        """A whole number 0 .. bound - 1."""
        return int(self.random() * bound)

    def between(self, low: float, high: float) -> float:
        """A number low .. high."""
        return low + (high - low) * self.random()


@dataclass(frozen=True, slots=True)
class Texture:
    """A picture that is nothing but a texture."""

    kind: str
    period: int
    turn: int
    phase: int
    first: Colour
    second: Colour


@dataclass(slots=True)
class Plan:
    """Everything about one image but its pixels. `scene` and `texture` are label names for the whole image."""

    facts: Facts
    canvas: Canvas
    scene: str | None = None
    texture: str | None = None
    pattern: Texture | None = None
    material_plane: bool = False
    offset: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """Image name relative to images/."""
        return f"{self.facts.source}/{self.facts.number:06d}.jpg"


def _variant(vocabulary: Vocabulary, category: str, kind: str, draw: Draw) -> int:
    return draw.below(max(1, vocabulary.count(category, KINDS[category].index(kind))))


@lru_cache(maxsize=4096)
def _look(kind: str, variant: int) -> tuple[float, int]:
    """Form and preferred colour of a variant of a thing, the same in every image."""
    draw = Draw(seeded(977, hash_name(kind), variant))
    return draw.random(), draw.below(len(COLOURS))


def hash_name(text: str) -> int:
    """A small number from a name, the same in every process."""
    value = 0
    for letter in text.encode():
        value = (value * 31 + letter) % 1_000_003
    return value


def _thing(canvas: Canvas, draw: Draw, vocabulary: Vocabulary, kind: str, frame: Frame) -> str:
    """Paint a thing; returns the palette name of its colour."""
    variant = _variant(vocabulary, "object", kind, draw)
    form, preferred = _look(kind, variant)
    # Variant 0 comes in all colours and forms, so that no unit can take the colour for the thing.
    colour = COLOURS[draw.below(len(COLOURS)) if variant == 0 else preferred]
    form = draw.random() if variant == 0 else form

    def part(name: str) -> str:
        count = max(1, vocabulary.count("part", PARTS.index(name)))
        return variant_name(name, variant % count if variant else draw.below(count))

    parts: dict[str, str] = {}
    brush = Brush(canvas, frame, variant_name(kind, variant), lambda name: parts.setdefault(name, part(name)))
    PAINTERS[kind](brush, canvas.shade(PALETTE[colour]), form)
    return colour


def _stuff(canvas: Canvas, draw: Draw, vocabulary: Vocabulary, what: tuple[str, Colour, str | None]) -> int:
    kind, colour, material = what
    name = variant_name(kind, _variant(vocabulary, "object", kind, draw))
    return canvas.region(Region(canvas.shade(colour), material_fill(material), name, (), material))


def _frame(kind: str, scale: float, centre: float, floor: float) -> Frame:
    width, height = SHAPES[kind]
    return Frame(centre - width * scale / 2, floor - height * scale, width * scale, height * scale)


def _scene(plan: Plan, draw: Draw, vocabulary: Vocabulary, kind: str, main: str) -> str:
    """Backdrop, a few small things, the main thing in front; returns its colour."""
    canvas = plan.canvas
    backdrop = BACKDROPS[kind]
    plan.scene = variant_name(f"{kind}-s", _variant(vocabulary, "scene", f"{kind}-s", draw))
    horizon = backdrop.horizon + draw.between(-0.06, 0.06)
    upper = _stuff(canvas, draw, vocabulary, backdrop.upper)
    lower = _stuff(canvas, draw, vocabulary, backdrop.lower)
    canvas.box(upper, 0, 0, 1, horizon)
    canvas.box(lower, 0, horizon, 1, 1)
    indoors = backdrop.upper[0] == "wall"
    if indoors and draw.random() < 0.7:
        left = draw.between(0.05, 0.7)
        frame = Frame(left, 0.12, 0.24, 0.26)
        hanging_window(canvas, frame, variant_name("window", _variant(vocabulary, "object", "window", draw)))
    if indoors and draw.random() < 0.5:
        left = draw.between(0.02, 0.8)
        frame = Frame(left, horizon - 0.42, 0.18, 0.42)
        standing_door(canvas, frame, variant_name("door", _variant(vocabulary, "object", "door", draw)))
    for _ in range(draw.below(3)):
        other = THINGS[draw.below(len(THINGS))]
        frame = _frame(other, draw.between(0.3, 0.5), draw.random(), horizon + draw.between(0.02, 0.2))
        _thing(canvas, draw, vocabulary, other, frame)
    frame = _frame(main, draw.between(0.75, 1.05), draw.between(0.3, 0.7), draw.between(0.84, 0.98))
    return _thing(canvas, draw, vocabulary, main, frame)


def _patches(plan: Plan, draw: Draw) -> None:
    """Patches of materials on an unlabelled ground."""
    canvas = plan.canvas
    canvas.box(canvas.region(Region(canvas.shade(PALETTE["grey"], 60))), 0, 0, 1, 1)
    for _ in range(2 + draw.below(3)):
        name = MATERIALS[draw.below(len(MATERIALS))]
        number = canvas.region(Region(canvas.shade(MATERIAL_COLOURS[name], 24), material_fill(name), material=name))
        left, top = draw.between(-0.1, 0.6), draw.between(-0.1, 0.6)
        right, bottom = left + draw.between(0.35, 0.75), top + draw.between(0.35, 0.75)
        shape = canvas.box if draw.random() < 0.6 else canvas.oval
        shape(number, left, top, right, bottom)


def plan_image(index: int, size: int, seed: int, vocabulary: Vocabulary) -> Plan:
    """The plan of image number `index`. The same arguments give the same plan, whatever other images exist."""
    draw = Draw(seeded(seed, index))
    source = _source(index)
    # Kinds go round in turn: each class has the same number of images, whatever the seed.
    turn = index // 100 * dict(SOURCES)[source] + _place(index)
    canvas = Canvas(size, draw.random)
    plan = Plan(Facts(index, source, "", "", "", ""), canvas)
    plan.offset = (draw.below(60), draw.below(60))
    if source == "textures":
        kind = TEXTURES[turn % len(TEXTURES)]
        first = COLOURS[draw.below(len(COLOURS))]
        second = COLOURS[(COLOURS.index(first) + 1 + draw.below(len(COLOURS) - 1)) % len(COLOURS)]
        period = max(4, int(size * draw.between(0.06, 0.16)))
        plan.pattern = Texture(
            kind, period, draw.below(4), draw.below(64), canvas.shade(PALETTE[first]), canvas.shade(PALETTE[second])
        )
        plan.texture = variant_name(kind, _variant(vocabulary, "texture", kind, draw))
        plan.facts = Facts(index, source, "", kind, "", first)
    elif source == "scenes":
        # Step through both at different speeds: all pairs come up.
        scene = SCENES[turn % len(SCENES)]
        main = THINGS[(turn + turn // len(SCENES)) % len(THINGS)]
        colour = _scene(plan, draw, vocabulary, scene, main)
        plan.material_plane = index % 2 == 0
        plan.facts = Facts(index, source, main, "", scene, colour)
    elif source == "objects":
        main = THINGS[turn % len(THINGS)]
        canvas.box(canvas.region(Region(canvas.shade(PALETTE[COLOURS[draw.below(len(COLOURS))]]))), 0, 0, 1, 1)
        frame = _frame(main, draw.between(1.05, 1.3), draw.between(0.4, 0.6), draw.between(0.92, 1.0))
        colour = _thing(canvas, draw, vocabulary, main, frame)
        plan.facts = Facts(index, source, main, "", "", colour)
    elif source == "materials":
        _patches(plan, draw)
        plan.material_plane = True
    else:
        for number in range(6):
            region = canvas.region(Region(canvas.shade(PALETTE[COLOURS[draw.below(len(COLOURS))]], 40)))
            canvas.box(region, 0, number / 6, 1, (number + 1) / 6 + 0.01)
    return plan


@lru_cache(maxsize=1)
def _block() -> tuple[tuple[str, int], ...]:
    """Source and place within the source for each place of a block of 100 images, well mixed."""
    owed = [0] * len(SOURCES)
    taken = [0] * len(SOURCES)
    block: list[tuple[str, int]] = []
    for _ in range(100):
        owed = [debt + share for debt, (_, share) in zip(owed, SOURCES, strict=True)]
        best = owed.index(max(owed))
        owed[best] -= 100
        block.append((SOURCES[best][0], taken[best]))
        taken[best] += 1
    return tuple(block)


def _source(index: int) -> str:
    return _block()[index % 100][0]


def _place(index: int) -> int:
    return _block()[index % 100][1]
