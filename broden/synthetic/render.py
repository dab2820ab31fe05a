"""From a plan to pixels and label planes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from broden.colours import NAMES, name_pixels
from broden.synthetic.patterns import BANK_MARGIN, material_bank, noise, texture
from broden.synthetic.plan import Plan
from broden.synthetic.vocabulary import Vocabulary
from broden.writing import Key, Tally

QUALITY = 88


def label_places(size: int, label_size: int) -> NDArray[np.intp]:
    """Picture row (or column) at the centre of each label row: nearest zoom, order 0."""
    return (2 * np.arange(label_size) + 1) * size // (2 * label_size)


@lru_cache(maxsize=4)
def _grain(size: int) -> NDArray[np.int16]:
    side = size + BANK_MARGIN
    grain = (noise((side, side), 7) >> 5).astype(np.int16) - 4
    grain.setflags(write=False)
    return grain


@lru_cache(maxsize=4)
def _filled(size: int) -> NDArray[np.int16]:
    """The material bank with a fine grain added to every layer, flat."""
    return np.ascontiguousarray(material_bank(size) + _grain(size)).reshape(-1)


def pixels(plan: Plan, places: NDArray[np.intp]) -> NDArray[np.uint8]:
    """The picture at the crossings of `places` x `places`, uint8 [P, P, 3]."""
    size = plan.canvas.size
    side = size + BANK_MARGIN
    dy, dx = plan.offset
    if plan.pattern is not None:
        look = plan.pattern
        weight = texture(look.kind, size, look.period, look.turn, look.phase)[places][:, places].astype(np.int16)
        first, second = np.array(look.first, np.int16), np.array(look.second, np.int16)
        value = first + (second - first) * (weight[..., None] // 85) // 3
        value = value + _grain(size)[places + dy][:, places + dx][..., None]
        return np.clip(value, 0, 255).astype(np.uint8)
    regions = np.asarray(plan.canvas.map)[places][:, places]
    fills = np.array([region.fill for region in plan.canvas.regions], np.int32) * (side * side)
    where = fills[regions] + ((places + dy) * side)[:, None].astype(np.int32) + (places + dx)[None, :].astype(np.int32)
    colours = np.array([region.colour for region in plan.canvas.regions], np.int16)
    value = colours[regions] + _filled(size)[where][..., None]
    return np.clip(value, 0, 255, out=value).astype(np.uint8)


def jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """The picture as a file."""
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


@dataclass(slots=True)
class Truth:
    """Labels of one image by name. Pixel planes are lists of (names, index plane): index 0 = None = unlabelled."""

    planes: dict[str, list[tuple[list[str | None], NDArray[np.uint8]]]]
    scalars: dict[str, str]


def truth(plan: Plan, vocabulary: Vocabulary, label_size: int) -> Truth:
    """What the labels of the picture are, by construction."""
    planes: dict[str, list[tuple[list[str | None], NDArray[np.uint8]]]] = {}
    scalars: dict[str, str] = {}
    if plan.facts.source == "plain":
        return Truth(planes, scalars)
    places = label_places(plan.canvas.size, label_size)

    def labelled(category: str, name: str | None) -> str | None:
        return name if name is not None and vocabulary.labelled(category, name) else None

    colours: list[str | None] = [None, *(labelled("color", f"{name}-c") for name in NAMES)]
    planes["color"] = [(colours, name_pixels(pixels(plan, places)) + np.uint8(1))]
    if plan.pattern is None:
        regions = np.asarray(plan.canvas.map)[places][:, places] + np.uint8(1)
        every = plan.canvas.regions
        if plan.facts.source != "materials":
            planes["object"] = [([None, *(labelled("object", region.thing) for region in every)], regions)]
            depth = max((len(region.parts) for region in every), default=0)
            planes["part"] = [
                ([None, *(labelled("part", r.parts[k] if k < len(r.parts) else None) for r in every)], regions)
                for k in range(depth)
            ]
        if plan.material_plane:
            planes["material"] = [([None, *(labelled("material", region.material) for region in every)], regions)]
    for category, name in (("scene", plan.scene), ("texture", plan.texture)):
        if name is not None and vocabulary.labelled(category, name):
            scalars[category] = name
    return Truth(planes, scalars)


def shown(names: list[str | None], plane: NDArray[np.uint8]) -> dict[str, int]:
    """Pixels by concept in one plane; hidden and unlabelled ones left out."""
    counts = np.bincount(plane.reshape(-1), minlength=len(names))
    found: dict[str, int] = {}
    for name, count in zip(names, counts.tolist(), strict=True):
        if name is not None and count:
            found[name] = found.get(name, 0) + count
    return found


def count(labels: Truth, tally: Tally) -> None:
    """Add one image to the tally: a pixel belongs to a concept of a category once, whichever planes carry it.

    In these pictures a part plane never repeats a concept of another part plane at the same pixel.
    """
    for category, planes in labels.planes.items():
        found: dict[Key, int] = {}
        for names, plane in planes:
            for name, number in shown(names, plane).items():
                found[category, name] = found.get((category, name), 0) + number
        for key, number in found.items():
            tally.add(key, number)
    for category, name in labels.scalars.items():
        tally.add((category, name), tally.area)
