"""A contact sheet: one HTML file with pictures and the concept's mask drawn, which opens from disk."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from broden.dataset import Dataset
from broden.errors import InputFault
from broden.finding import Match, mask_of
from broden.schema import Label

SIDE = 160
_EDGE = np.array([255, 200, 0], np.uint8)

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem }}
ol {{ display: grid; grid-template-columns: repeat(auto-fill, minmax({side}px, 1fr)); gap: 1rem; list-style: none;
  padding: 0 }}
figure {{ margin: 0 }} img {{ width: 100%; height: auto; display: block; border-radius: 4px }}
figcaption {{ font-size: 12px; overflow-wrap: anywhere }}
</style></head><body>
<h1>{title}</h1>
<p>{summary}</p>
<ol>
"""


def draw_mask(rgb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture [h, w, 3] darkened outside `mask` [H, W], with a yellow outline inside its border."""
    height, width = rgb.shape[:2]
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    inside = mask[rows][:, columns]
    padded = np.pad(inside, 1, constant_values=True)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    out = np.where(inside[..., None], rgb, rgb // 4)
    out[inside & ~core] = _EDGE
    return out


def _data_uri(rgb: NDArray[np.uint8]) -> str:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "WEBP", quality=70)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def contact_sheet(
    data: Dataset, labels: Sequence[Label], matches: Sequence[Match], total: int, category: str | None = None
) -> str:
    """HTML with one figure for each of `matches`; `total` is how many there are in all."""
    index = next((c.index for c in data.categories if c.name == category), None)
    names = " and ".join(label.name for label in labels)
    title = f"{names} in {data.name}"
    summary = f"{total:,} of {len(data):,} images; {len(matches):,} shown, most covered first."
    parts = [_HEAD.format(title=escape(title), summary=escape(summary), side=SIDE)]
    for match in matches:
        try:
            rgb = data.read_image(match.position, SIDE)
            stored = data.read_labels(match.position)
        except InputFault as fault:
            caption = f"{match.image}: {fault.reason}"
            parts.append(f"<li><figure><figcaption>{escape(caption)}</figcaption></figure></li>\n")
            continue
        row = data.rows[match.position]
        masks = [mask_of(row, stored, label.number, index) for label in labels]
        picture = _data_uri(draw_mask(rgb, np.logical_or.reduce(masks)))
        text = f"{match.image} \u00b7 {match.coverage:.1%}"
        alt = f"{names} in {match.image}, {match.coverage:.1%} of the image"
        parts.append(
            f'<li><figure><img src="{picture}" alt="{escape(alt)}" width="{SIDE}" height="{SIDE}" loading="lazy">'
            f"<figcaption>{escape(text)}</figcaption></figure></li>\n"
        )
    parts.append("</ol></body></html>\n")
    return "".join(parts)
