"""Pictures in and out: contact sheets with captions, a live sheet of work in progress, curves, atomic PNG files."""

import hashlib
import html
import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageOps, UnidentifiedImageError

from dissect.errors import SpaceError, SpecError
from dissect.inversion.engine import Glance
from dissect.inversion.pixels import InputRange

GAP = 4
CAPTION = 14
PAPER = (255, 255, 255)
INK = (40, 40, 40)
LIVE_SECONDS = 5.0


def write_bytes(path: Path, data: bytes) -> str:
    """Put a file in place atomically; its sha256. Raises SpaceError where it cannot be written."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise SpaceError(f"cannot write {path.name} in {path.parent}: {error.strerror}") from None
    return hashlib.sha256(data).hexdigest()


def png(image: np.ndarray) -> bytes:
    """uint8 [h, w, 1 or 3] as PNG bytes, which hold nothing but the pixels."""
    buffer = io.BytesIO()
    Picture.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def write_png(path: Path, image: np.ndarray) -> str:
    return write_bytes(path, png(image))


def read_image(path: Path, size: tuple[int, int] | None, planes: int = 3) -> np.ndarray:
    """An image file as uint8 [h, w, planes]: upright, its shorter side brought to fit and the centre cut to `size`.

    Raises SpecError for a file that is no image.
    """
    try:
        with Picture.open(path) as stored:
            picture = ImageOps.exif_transpose(stored).convert("L" if planes == 1 else "RGB")
    except (OSError, UnidentifiedImageError, Picture.DecompressionBombError) as error:
        raise SpecError(f"{path.name} cannot be read as an image: {error}") from None
    if size is not None:
        picture = ImageOps.fit(picture, (size[1], size[0]), Picture.Resampling.BILINEAR)
    array = np.asarray(picture)
    return array[:, :, None] if planes == 1 else array


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """Files as given, folders replaced by the images in them in order of name. Raises SpecError where there is none."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp", ".bmp"})
        elif path.is_file():
            found.append(path)
        else:
            raise SpecError(f"there is no image or folder {str(path)!r}")
    if not found:
        raise SpecError(f"no images in {', '.join(map(str, paths))}: expected .jpg, .png, .webp or .bmp files")
    return found


def _tile(image: np.ndarray, side: int) -> Picture.Image:
    picture = Picture.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("RGB")
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Small images are shown as the pixels they are.
    return picture.resize(size, Picture.Resampling.NEAREST if scale > 1 else Picture.Resampling.LANCZOS)


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray | None]],
    columns: Sequence[str] = (),
    names: Sequence[str] = (),
    side: int = 128,
) -> np.ndarray:
    """A sheet of uint8 images with captions over the columns and, where `names` are given, to the left of the rows."""
    width = max(len(row) for row in rows)
    left = 96 if names else GAP
    top = CAPTION + GAP if columns else GAP
    canvas = Picture.new("RGB", (left + width * (side + GAP), top + len(rows) * (side + GAP)), PAPER)
    draw = ImageDraw.Draw(canvas)
    letters = max(4, side // 7)
    for x, text in enumerate(columns):
        draw.text((left + x * (side + GAP), 2), text if len(text) <= letters else "…" + text[1 - letters :], fill=INK)
    for y, row in enumerate(rows):
        if names:
            draw.text((GAP, top + y * (side + GAP) + side // 2), names[y][:15], fill=INK)
        for x, image in enumerate(row):
            if image is not None:
                canvas.paste(_tile(image, side), (left + x * (side + GAP), top + y * (side + GAP)))
    return np.asarray(canvas)


class LiveSheet:
    """A watcher that rewrites one PNG of all the images of a batch, at most every few seconds, and counts the steps."""

    def __init__(self, path: Path, pixels: InputRange, every: float = LIVE_SECONDS, columns: int = 8) -> None:
        self.path, self.pixels, self.every, self.columns = path, pixels, every, columns
        self._shown = time.monotonic()

    def __call__(self, glance: Glance) -> None:
        now = time.monotonic()
        if now - self._shown < self.every and glance.done < glance.steps:
            return
        self._shown = now
        images = list(self.pixels.to_uint8(glance.render()))
        rows = [images[i : i + self.columns] for i in range(0, len(images), self.columns)]
        write_png(self.path, contact_sheet(rows, [f"step {glance.done} of {glance.steps}"], side=96))


def curves(series: Mapping[str, Sequence[float]], places: Sequence[str], title: str, axis: str) -> str:
    """An SVG with one line a series over named places; values in a <title> on every point."""
    colours = ("#1f6feb", "#d4622a", "#2a8f5a", "#8a4fbf", "#666666")
    width, height, left, bottom, top = 760, 360, 56, 110, 30
    peak = max((v for values in series.values() for v in values if np.isfinite(v)), default=1.0) or 1.0
    step = (width - left - 90) / max(1, len(places) - 1)

    def at(i: int, v: float) -> tuple[float, float]:
        return left + i * step, top + (height - bottom - top) * (1 - v / peak)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<text x="{left}" y="18" font-size="14">{html.escape(title)}</text>',
    ]
    for k in range(5):
        y = at(0, peak * k / 4)[1]
        parts.append(f'<path d="M{left} {y:.1f}H{width - 20}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{peak * k / 4:.3g}</text>')
    parts.append(f'<text x="{width - 20}" y="18" text-anchor="end">{html.escape(axis)}</text>')
    for i, name in enumerate(places):
        x, y = at(i, 0)
        parts.append(f'<text transform="translate({x:.1f} {y + 12:.1f}) rotate(50)">{html.escape(name[-18:])}</text>')
    for k, (name, values) in enumerate(series.items()):
        colour = colours[k % len(colours)]
        points = [(*at(i, v), v, places[i]) for i, v in enumerate(values) if np.isfinite(v)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>'
            f"{html.escape(f'{name}, {place}: {v:.4g}')}</title></circle>"
            for x, y, v, place in points
        ]
        parts.append(f'<text x="{left + 160 * k}" y="{height - 8}" fill="{colour}">{html.escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])
