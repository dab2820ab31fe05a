"""Maps as pictures: colours, overlays on the image, and arrays on disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

# Anchors of the colours, from 0 to 1: dark to bright for magnitudes; blue, transparent white, red for signs.
_HEAT = np.array([[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], float)
_SIGNED = np.array([[5, 48, 140], [90, 150, 220], [247, 247, 247], [235, 120, 90], [140, 5, 30]], float)


def _coloured(share: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    place = share.clip(0, 1) * (len(anchors) - 1)
    low = np.minimum(place.astype(int), len(anchors) - 2)
    return anchors[low] + (place - low)[..., None] * (anchors[low + 1] - anchors[low])


def overlay(image: np.ndarray, heat: np.ndarray, strength: float = 0.75) -> np.ndarray:
    """uint8 [h, w, 3] with the map [h, w] over it. The scale ends at the map's 99.5 % quantile of magnitude; a map with
    negative places gets the signed colours, white at zero."""
    if image.shape[:2] != heat.shape:
        raise ValueError(f"image {image.shape[:2]} and map {heat.shape} differ in size")
    values = np.nan_to_num(heat.astype(float))
    top = float(np.quantile(np.abs(values), 0.995)) or float(np.abs(values).max()) or 1.0
    scaled = (values / top).clip(-1, 1)
    signed = bool((values < 0).any())
    colours = _coloured((scaled + 1) / 2, _SIGNED) if signed else _coloured(scaled, _HEAT)
    alpha = strength * np.abs(scaled)[..., None] ** 0.5
    grey = image.astype(float).mean(2, keepdims=True).repeat(3, 2)
    return (grey * (1 - alpha) + colours * alpha).round().clip(0, 255).astype(np.uint8)


def sheet(tiles: Sequence[tuple[str, np.ndarray]], columns: int = 4, gap: int = 8) -> Image.Image:
    """Pictures of one size [h, w, 3] in rows, each with a caption."""
    height, width = tiles[0][1].shape[:2]
    caption = 26
    rows = -(-len(tiles) // columns)
    columns = min(columns, len(tiles))
    page = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + caption + gap) + gap), "white")
    pen = ImageDraw.Draw(page)
    for number, (text, tile) in enumerate(tiles):
        left, top = gap + number % columns * (width + gap), gap + number // columns * (height + caption + gap)
        page.paste(Image.fromarray(tile), (left, top + caption))
        for line, part in enumerate(text.split("\n")[:2]):
            pen.text((left, top + 12 * line), part[: width // 6], fill="black")
    return page


def write_arrays(path: Path, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    """One .npz with the arrays, and the record as JSON text under `record`."""
    np.savez_compressed(path, record=np.array(json.dumps(record)), **arrays)  # type: ignore[arg-type]


def read_image(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    """uint8 [h, w, 3]; squashed to size (height, width) where given, bilinear."""
    with Image.open(path) as file:
        picture = file.convert("RGB")
        if size is not None:
            picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.array(picture)
