"""The things of synthetic pictures, composed of parts. Each paints itself into a frame of its own."""

from __future__ import annotations

from collections.abc import Callable

from broden.synthetic.scenery import MATERIAL_COLOURS, PALETTE, Canvas, Colour, Frame, Region, material_fill


class Brush:
    """Paints the regions of one thing: its object label, and parts as named by `variant`."""

    def __init__(self, canvas: Canvas, frame: Frame, name: str, part: Callable[[str], str]) -> None:
        self.canvas = canvas
        self.frame = frame
        self._name = name
        self._part = part

    def region(self, colour: Colour, *parts: str, material: str | None = None) -> int:
        """A region of this thing with its part labels, outermost first."""
        names = tuple(self._part(part) for part in parts)
        return self.canvas.region(Region(colour, material_fill(material), self._name, names, material))

    def box(self, number: int, left: float, top: float, right: float, bottom: float) -> None:
        """A rectangle in the frame."""
        self.canvas.box(number, *self.frame.corners(left, top, right, bottom))

    def oval(self, number: int, left: float, top: float, right: float, bottom: float) -> None:
        """An ellipse in the frame."""
        self.canvas.oval(number, *self.frame.corners(left, top, right, bottom))

    def polygon(self, number: int, *points: tuple[float, float]) -> None:
        """A polygon in the frame."""
        self.canvas.polygon(number, *((self.frame.x(x), self.frame.y(y)) for x, y in points))


def house(brush: Brush, colour: Colour, form: float) -> None:
    """Walls, roof, chimney, windows, a door with a knob."""
    roof_top = 0.05 + 0.2 * form
    stone = brush.region(colour, material="brick" if form < 0.5 else "stone")
    brush.box(brush.region((120, 60, 50), "chimney", material="brick"), 0.7, 0.05, 0.82, 0.4)
    brush.box(stone, 0.08, 0.4, 0.92, 1.0)
    brush.polygon(brush.region((160, 70, 50), "roof", material="tile"), (0.0, 0.42), (0.5, roof_top), (1.0, 0.42))
    glass = brush.region((150, 195, 220), "window", material="glass")
    columns = (0.16, 0.66) if form < 0.6 else (0.14, 0.42, 0.7)
    for left in columns:
        brush.box(glass, left, 0.5, left + 0.17, 0.68)
    brush.box(brush.region((110, 70, 40), "door", material="wood"), 0.4, 0.72, 0.58, 1.0)
    brush.oval(brush.region((230, 200, 80), "door", "knob", material="metal"), 0.52, 0.83, 0.57, 0.89)


def car(brush: Brush, colour: Colour, form: float) -> None:
    """Body, cabin windows, bumper, two wheels with hubs."""
    metal = brush.region(colour, material="metal")
    brush.polygon(metal, (0.18, 0.42), (0.3 - 0.08 * form, 0.08), (0.72, 0.08), (0.86, 0.42))
    brush.box(metal, 0.02, 0.4, 0.98, 0.8)
    glass = brush.region((160, 205, 230), "window", material="glass")
    brush.polygon(glass, (0.25, 0.42), (0.33 - 0.06 * form, 0.15), (0.48, 0.15), (0.48, 0.42))
    brush.polygon(glass, (0.53, 0.42), (0.53, 0.15), (0.69, 0.15), (0.79, 0.42))
    brush.box(brush.region((90, 92, 95), "bumper", material="metal"), 0.9, 0.62, 1.0, 0.76)
    rubber = brush.region((30, 30, 32), "wheel")
    hub = brush.region((190, 192, 195), "wheel", "hub", material="metal")
    for left in (0.12, 0.62):
        brush.oval(rubber, left, 0.6, left + 0.26, 1.0)
        brush.oval(hub, left + 0.08, 0.72, left + 0.18, 0.88)


def tree(brush: Brush, colour: Colour, form: float) -> None:
    """Trunk and foliage, round or pointed."""
    del colour
    brush.box(brush.region((105, 70, 40), "trunk", material="wood"), 0.42, 0.55, 0.58, 1.0)
    leaves = brush.region((50 + int(40 * form), 125, 45), "foliage", material="foliage")
    if form < 0.5:
        brush.oval(leaves, 0.05, 0.0, 0.95, 0.66)
    else:
        for top, half in ((0.0, 0.26), (0.18, 0.36), (0.36, 0.46)):
            brush.polygon(leaves, (0.5 - half, top + 0.34), (0.5, top), (0.5 + half, top + 0.34))


def face(brush: Brush, colour: Colour, form: float) -> None:
    """Hair, skin, eyes with pupils, nose, mouth, and clothes in the given colour."""
    cloth = brush.region(colour, material="fabric")
    brush.polygon(cloth, (0.05, 1.0), (0.25, 0.82), (0.75, 0.82), (0.95, 1.0))
    hair = brush.region((60, 40, 28) if form < 0.6 else (200, 160, 80), "hair")
    brush.oval(hair, 0.1, 0.0, 0.9, 0.75)
    skin = brush.region((228, 178, 146), material="skin")
    brush.oval(skin, 0.18, 0.14, 0.82, 0.9)
    white = brush.region((240, 240, 238), "eye")
    pupil = brush.region((30, 50, 90), "eye", "pupil")
    for left in (0.28, 0.56):
        brush.oval(white, left, 0.38, left + 0.17, 0.48)
        brush.oval(pupil, left + 0.055, 0.385, left + 0.115, 0.475)
    brush.polygon(brush.region((205, 145, 115), "nose", material="skin"), (0.5, 0.48), (0.43, 0.63), (0.57, 0.63))
    brush.oval(brush.region((190, 50, 60), "mouth"), 0.36, 0.69, 0.64, 0.69 + 0.06 + 0.06 * form)


def boat(brush: Brush, colour: Colour, form: float) -> None:
    """Hull and one or two sails."""
    brush.polygon(brush.region(colour, "sail", material="fabric"), (0.5, 0.0), (0.5, 0.68), (0.95, 0.68))
    if form < 0.6:
        brush.polygon(brush.region((236, 232, 222), "sail", material="fabric"), (0.45, 0.12), (0.45, 0.68), (0.1, 0.68))
    hull = brush.region((115, 75, 45), "hull", material="wood")
    brush.polygon(hull, (0.0, 0.72), (1.0, 0.72), (0.82, 1.0), (0.18, 1.0))


def flower(brush: Brush, colour: Colour, form: float) -> None:
    """Stem, a ring of petals around a centre."""
    brush.box(brush.region((70, 130, 50), "stem", material="foliage"), 0.46, 0.5, 0.54, 1.0)
    petal = brush.region(colour, "petal")
    places = ((0.5, 0.12), (0.76, 0.3), (0.66, 0.56), (0.34, 0.56), (0.24, 0.3))
    radius = 0.16 + 0.05 * form
    for x, y in places:
        brush.oval(petal, x - radius, y - radius * 0.8, x + radius, y + radius * 0.8)
    brush.oval(brush.region((240, 200, 50)), 0.36, 0.24, 0.64, 0.5)


def lamp(brush: Brush, colour: Colour, form: float) -> None:
    """Shade on a stand with a base."""
    brush.box(brush.region((110, 110, 115), material="metal"), 0.46, 0.35, 0.54, 0.92)
    brush.oval(brush.region((80, 80, 84), "base", material="metal"), 0.24, 0.86, 0.76, 1.0)
    top = 0.2 + 0.14 * form
    shade = brush.region(colour, "shade", material="paper")
    brush.polygon(shade, (top, 0.0), (1 - top, 0.0), (0.95, 0.42), (0.05, 0.42))


def fish(brush: Brush, colour: Colour, form: float) -> None:
    """Body, tail and back fin, eye."""
    fin = brush.region((240, 150, 60), "fin")
    brush.polygon(fin, (0.72, 0.5), (1.0, 0.15), (1.0, 0.85))
    brush.polygon(fin, (0.3, 0.25), (0.5, 0.0), (0.62, 0.3))
    brush.oval(brush.region(colour), 0.0, 0.2 - 0.05 * form, 0.8, 0.8 + 0.05 * form)
    brush.oval(brush.region((240, 240, 238), "eye"), 0.1, 0.34, 0.24, 0.52)
    brush.oval(brush.region((20, 20, 24), "eye", "pupil"), 0.14, 0.38, 0.2, 0.48)


PAINTERS: dict[str, Callable[[Brush, Colour, float], None]] = {
    "house": house, "car": car, "tree": tree, "face": face, "boat": boat, "flower": flower, "lamp": lamp, "fish": fish,
}  # fmt: skip
SHAPES = {
    "house": (0.62, 0.62), "car": (0.7, 0.4), "tree": (0.44, 0.7), "face": (0.56, 0.7), "boat": (0.58, 0.58),
    "flower": (0.42, 0.66), "lamp": (0.36, 0.62), "fish": (0.66, 0.4),
}  # fmt: skip
"""Width and height of each thing when it is the main one, in sides of the picture."""


def standing_door(canvas: Canvas, frame: Frame, name: str) -> None:
    """A door that is an object of its own."""
    region = Region(MATERIAL_COLOURS["wood"], material_fill("wood"), name, (), "wood")
    canvas.box(canvas.region(region), *frame.corners(0, 0, 1, 1))


def hanging_window(canvas: Canvas, frame: Frame, name: str) -> None:
    """A window that is an object of its own, with a frame."""
    canvas.box(canvas.region(Region(PALETTE["white"], thing=name)), *frame.corners(0, 0, 1, 1))
    region = Region(MATERIAL_COLOURS["glass"], material_fill("glass"), name, (), "glass")
    canvas.box(canvas.region(region), *frame.corners(0.1, 0.1, 0.9, 0.9))
