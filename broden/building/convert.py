"""One labelled image of any source, brought to the size, the names and the planes of the set."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from broden import decode
from broden.building.names import NameRules
from broden.colours import NAMES, name_pixels
from broden.errors import InputFault
from broden.sources.base import Layer, Sample
from broden.writing import Key

SHAPE_TOLERANCE = 0.02
"""A scaled map may differ by this much in shape (height over width) from its picture: sizes are whole numbers."""


@dataclass(frozen=True)
class Target:
    """Sizes (height, width), how pictures are fitted, JPEG quality, colour table (None: no colours), name rules."""

    size: tuple[int, int]
    label_size: tuple[int, int]
    fit: str
    quality: int
    colors: NDArray[np.uint8] | None
    names: NameRules


@dataclass
class Converted:
    """The picture as a JPEG file; planes of concepts by category, as lists of (names by index, index [H, W])."""

    jpeg: bytes
    planes: dict[str, list[tuple[list[str], NDArray[np.uint16]]]]
    scalars: list[Key]
    synonyms: dict[str, set[str]]


def crop_box(height: int, width: int, target: Target) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what is kept, in pixels."""
    if target.fit == "squash":
        return 0.0, 0.0, float(width), float(height)
    aspect = target.size[1] / target.size[0]
    wide, high = (float(width), width / aspect) if width <= height * aspect else (height * aspect, float(height))
    left, top = (width - wide) / 2, (height - high) / 2
    return left, top, left + wide, top + high


def places(start: float, stop: float, length: int, count: int) -> NDArray[np.intp]:
    """Source index nearest to each of `count` centres between start and stop."""
    step = (stop - start) / count
    return np.clip(np.floor(start + (np.arange(count) + 0.5) * step), 0, length - 1).astype(np.intp)


def sampled(array: NDArray[np.generic], target: Target) -> NDArray[np.generic]:
    """A map [h, w, ...] at label size, nearest, at half-pixel centres."""
    height, width = array.shape[:2]
    left, top, right, bottom = crop_box(height, width, target)
    rows = places(top, bottom, height, target.label_size[0])
    columns = places(left, right, width, target.label_size[1])
    return array[rows[:, None], columns[None, :]]


def picture(sample: Sample, target: Target) -> bytes:
    """JPEG bytes of the picture. A JPEG file that has the size and kind already is kept byte for byte."""
    height, width = sample.image.shape[:2]
    if (height, width) == target.size and sample.data is not None and _plain_jpeg(sample.data):
        return sample.data
    image = Image.fromarray(sample.image)
    if (height, width) != target.size:
        box = crop_box(height, width, target)
        image = image.resize((target.size[1], target.size[0]), Image.Resampling.BILINEAR, box=box)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=target.quality)
    return out.getvalue()


def _plain_jpeg(data: bytes) -> bool:
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    image = decode.open_picture(data)
    # A turned or CMYK file means different things to different loaders: write it anew.
    return image.mode in ("RGB", "L") and image.format == "JPEG" and image.getexif().get(0x0112, 1) == 1


def _aligned(sample: Sample, layer: Layer) -> None:
    """The map must have the picture's size, or for scaled maps its shape. A turned picture is turned. InputFault."""
    have, want = layer.numbers.shape, sample.image.shape[:2]
    if have == want:
        return
    if layer.scaled and abs(have[0] * want[1] / (have[1] * want[0]) - 1) <= SHAPE_TOLERANCE:
        return
    if sample.data is not None and have == want[::-1]:
        turned = decode.turned(sample.data)
        if turned.shape[:2] == have:
            # Annotators draw on the turned picture: then the map is turned too.
            sample.image, sample.data = turned, None
            return
    raise InputFault(layer.file, f"{have[0]} x {have[1]} pixels; its picture has {want[0]} x {want[1]}")


def _named(layer: Layer, target: Target, synonyms: dict[str, set[str]]) -> tuple[list[str], NDArray[np.uint16]]:
    """The layer at label size as (names by index, index); index 0 is unlabelled. Raises InputFault."""
    # Numbers are judged on the whole map, so that a wrong one is found at any size.
    for number in np.unique(layer.numbers).tolist():
        if number not in layer.names:
            raise InputFault(layer.file, f"label {number} has no name in this source")
    small = sampled(layer.numbers, target)
    numbers, inverse = np.unique(small, return_inverse=True)
    names = [""]
    index = np.zeros(len(numbers), np.uint16)
    for at, number in enumerate(numbers.tolist()):
        given = layer.names[number]
        name = target.names.unify(layer.category, given)
        if name is None:
            continue
        synonyms.setdefault(name, set()).update(given)
        if name not in names:
            names.append(name)
        index[at] = names.index(name)
    return names, index[inverse.reshape(small.shape)]


def merge_planes(
    layers: list[tuple[list[str], NDArray[np.uint16]]],
) -> list[tuple[list[str], NDArray[np.uint16]]]:
    """As few planes as a first-fit finds: a layer joins the first plane with which it disagrees nowhere."""
    planes: list[tuple[list[str], NDArray[np.uint16]]] = []
    for names, index in layers:
        if not index.any():
            continue
        for known, plane in planes:
            table = np.array([0, *(_place(known, name) for name in names[1:])], np.uint16)
            moved = table[index]
            if not ((plane > 0) & (moved > 0) & (plane != moved)).any():
                np.maximum(plane, moved, out=plane)
                break
        else:
            planes.append((list(names), index.copy()))
    return planes


def _place(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)


def convert(sample: Sample, target: Target) -> Converted:
    """Everything about one image but the label numbers, which are known when all images have been seen."""
    for layer in sample.layers:
        _aligned(sample, layer)
    synonyms: dict[str, set[str]] = {}
    by_category: dict[str, list[tuple[list[str], NDArray[np.uint16]]]] = {}
    if target.colors is not None:
        # Named at the picture's own resolution, then sampled: the order of the published builder.
        colours = name_pixels(np.ascontiguousarray(sampled(sample.image, target)), target.colors)
        names = ["", *(target.names.unify("color", (name,)) or "" for name in NAMES)]
        index = np.array([0, *(place if name else 0 for place, name in enumerate(names[1:], 1))], np.uint16)
        by_category["color"] = [(names, index[colours.astype(np.intp) + 1])]
    for layer in sample.layers:
        by_category.setdefault(layer.category, []).append(_named(layer, target, synonyms))
    scalars: list[Key] = []
    for category, given in sample.scalars:
        name = target.names.unify(category, given)
        if name is not None and (category, name) not in scalars:
            scalars.append((category, name))
            synonyms.setdefault(name, set()).update(given)
    planes = {category: merge_planes(layers) for category, layers in by_category.items()}
    return Converted(picture(sample, target), {c: p for c, p in planes.items() if p}, scalars, synonyms)
