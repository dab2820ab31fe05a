"""One unit as the data files keep it, and what the pages without a script make of that."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import images, text
from .data import finite
from .pages import Concept, UnitCard
from .sheets import Crops, Pieces

BEST = 10  # concepts listed under "why this label"
Record = dict[str, Any]


def records(
    cards: Sequence[UnitCard], thresholds: np.ndarray, thumbs: int, crops: Crops | None
) -> tuple[list[Record], list[list[Pieces]]]:
    """Records of the cards, and `thumbs` thumbnails of each (none where no picture can be had).

    A record: b best concepts and c best of each category as [label, I, A]; e exemplars as [position, name, activation,
    row, column, outline, heat map, 1 if the image is missing]; h histogram; k thumbnails on the
    sheet; m synthesised pictures, where there are any, as [file, title, note, width, height].
    """
    paths = _paths(cards, thresholds, thumbs if crops is not None else 0)
    out: list[Record] = []
    strips: list[list[Pieces]] = []
    for at, card in enumerate(cards):
        exemplars: list[list[Any]] = []
        strip: list[Pieces] = []
        shown = 0
        for place, x in enumerate(card.exemplars):
            gone = 1
            if crops is not None and place < thumbs:
                crop = crops.find(x.position)
                gone = int(crop is None)
                strip.append(crop or crops.absent)
                shown += 1 - gone
            path, heat = paths[at][place]
            exemplars.append([x.position, x.image, finite(x.activation), x.row, x.column, path, heat, gone])
        record: Record = {
            "b": [[s.concept, s.intersection, s.unit_area] for s in card.best[:BEST]],
            "c": [[s.concept, s.intersection, s.unit_area] for s in card.by_category],
            "e": exemplars,
            "k": min(len(card.exemplars), thumbs) if shown else 0,
        }
        if card.histogram is not None:
            record["h"] = [[float(f"{v:.6g}") for v in card.histogram.edges], list(card.histogram.counts)]
        out.append(record)
        if crops is not None:
            strips.append(strip + [crops.blank] * (thumbs - len(strip)))
    return out, strips


def _paths(cards: Sequence[UnitCard], thresholds: np.ndarray, thumbs: int) -> list[list[tuple[str, Any]]]:
    """(outline, heat map) of every exemplar that has a picture; maps of one shape are traced together."""
    out: list[list[tuple[str, Any]]] = [[("", 0)] * len(card.exemplars) for card in cards]
    by_shape: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for at, card in enumerate(cards):
        for place, x in enumerate(card.exemplars[:thumbs]):
            if x.map is not None:
                by_shape.setdefault(x.map.shape, []).append((at, place))
    for places in by_shape.values():
        maps = np.stack([np.asarray(cards[a].exemplars[p].map) for a, p in places])
        for at, ((a, p), path) in enumerate(zip(places, images.outlines(maps, thresholds[[a for a, _ in places]]))):
            out[a][p] = (path, images.heat(maps[at], thresholds[a]))
    return out


@dataclass(frozen=True)
class Strip:
    """A unit's row of a sheet with everything outside its masks dimmed."""

    src: str
    y: int
    px: int
    width: int
    height: int
    box: int
    veil: str
    alt: str
    paths: tuple[str, ...] = ()

    def thinner(self, most: int) -> "Strip":
        """The same with at most so many characters of masks."""
        return self if len(self.veil) <= most else replace(self, veil=images.veil(list(self.paths), most))


@dataclass(frozen=True)
class Sheets:
    """How thumbnails lie in files: `rows` units a file, `thumbs` a unit, `px` a side."""

    rows: int
    thumbs: int
    px: int

    def name(self, unit: int, count: int) -> str:
        """The file of a unit's row, named after the units in it."""
        first = unit // self.rows * self.rows
        last = min(first + self.rows, count) - 1
        return f"img/{first:05d}.jpg" if self.rows == 1 else f"img/{first:05d}-{last:05d}.jpg"

    def strip(self, unit: int, count: int, record: Record, alt: str, limit: int | None = None) -> Strip:
        """The strip of a unit, or its absence in words."""
        shown = min(record["k"], limit or self.thumbs)
        if not shown:
            why = "no top images" if not record["e"] else "the images are not at hand"
            return Strip("", 0, 0, 0, 0, 0, "", f"{alt}: {why}.")
        paths = [e[5] for e in record["e"][: self.thumbs]]
        return Strip(
            self.name(unit, count),
            unit % self.rows * (32 // self.rows),
            self.px,
            self.thumbs * self.px,
            self.rows * self.px,
            self.thumbs * images.BOX,
            images.veil(paths),
            alt,
            tuple(paths),
        )


@dataclass(frozen=True)
class Why:
    """A unit's label in words, with the integers that it follows from."""

    label: str
    numbers: str
    others: str
    notes: str


def equation(intersection: int, unit_area: int, area: int) -> str:
    """'123 / (456 + 789 − 123)'."""
    i, a, g = text.integer(intersection), text.integer(unit_area), text.integer(area)
    return f"{i} / ({a} + {g} − {i})"


def ratio(intersection: int, unit_area: int, area: int) -> float:
    """IoU from the integers, 0 where nothing meets."""
    union = unit_area + area - intersection
    return intersection / union if intersection and union else 0.0


def beside(intersection: int, unit_area: int, area: int, phi: float | None = None, ap: float | None = None) -> str:
    """What stands beside the IoU of a pair, in a sentence."""
    parts = [
        f"Precision {text.percent(intersection / unit_area if unit_area else 0)}",
        f"recall {text.percent(intersection / area if area else 0)}",
    ]
    if phi is not None and math.isfinite(phi):
        parts.append(f"correlation over pixels {phi:.3f}")
    if ap is not None and math.isfinite(ap):
        parts.append(f"average precision over images {ap:.3f}")
    return ", ".join(parts) + "."


def why(
    record: Record,
    concept: Concept | None,
    intersection: int,
    unit_area: int,
    iou: float,
    threshold: float,
    flags: Sequence[str],
    concepts: dict[int, Concept],
    interval: tuple[float, float] | None = None,
    q: float | None = None,
    stability: float | None = None,
    null: float | None = None,
    phi: float | None = None,
    ap: float | None = None,
) -> Why:
    """What a plain card says."""
    notes = list(flags)
    missing = sum(e[7] for e in record["e"][: record["k"]])
    if missing:
        notes.append(f"{missing} of its top images {'is' if missing == 1 else 'are'} missing")
    limit = f"T = {text.number(threshold)}" if math.isfinite(threshold) else "no threshold"
    if concept is None:
        return Why("no label", f"IoU 0; {limit}.", "", "; ".join(notes))
    extra = ""
    if interval and math.isfinite(interval[0]) and math.isfinite(interval[1]):
        extra += f", 95 % interval {text.iou(interval[0])} to {text.iou(interval[1])}"
    if stability is not None and math.isfinite(stability):
        extra += f", the best label in {text.percent(stability)} of redrawn image sets"
    extra += f", q = {text.number(q)}" if q is not None and math.isfinite(q) else ""
    if null is not None and math.isfinite(null):
        extra += f"{' where' if q is not None else ','} chance gives IoU {text.iou(null)}"
    numbers = (
        f"{concept.category}, IoU {text.iou(iou)} = {equation(intersection, unit_area, concept.area)}{extra}; {limit}. "
        f"{beside(intersection, unit_area, concept.area, phi, ap)}"
    )
    rest = []
    for number, i, a in record["b"][1:6]:
        c = concepts[number]
        rest.append(f"{text.shown(c.name, c.category)} {text.iou(ratio(i, a, c.area))} ({equation(i, a, c.area)})")
    others = "Next: " + "; ".join(rest) + "." if rest else ""
    return Why(text.shown(concept.name, concept.category), numbers, others, "; ".join(notes))
