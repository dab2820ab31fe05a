"""One unit as a piece of HTML for a notebook: a card that needs no other file."""

import base64
import io

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from . import images
from .layer import told
from .pages import Exemplar, ImageSource, LayerPage, RunPage
from .records import records
from .sheets import Crops

QUALITY = 80
STYLE = "font:14px/1.5 sans-serif;border-top:1px solid #ccc;padding:.5em 0;overflow-wrap:anywhere"


def card_html(
    run: RunPage, layer: LayerPage, unit: int, source: ImageSource | None = None, px: int = 112, thumbs: int = 5
) -> str:
    """The unit's label with its integers, and its masked top images as one embedded picture. Everything is escaped.

    Raises IndexError for a unit that the layer does not have.
    """
    if not 0 <= unit < layer.count:
        raise IndexError(f"layer {layer.name} has units 0 to {layer.count - 1}, not {unit}")
    (card,) = layer.cards(unit, unit + 1)
    crops = Crops(source, px, QUALITY) if source is not None and thumbs else None
    (record,), _ = records([card], layer.units.threshold[unit : unit + 1], thumbs, crops)
    u = layer.units
    concepts = {c.number: c for c in run.concepts}
    said = told(layer, concepts, unit, record)
    out = Markup('<div style="{}"><b>{} {}</b> <span>{}</span><br>{}').format(
        STYLE, unit, said.label, f"{run.name}, {layer.name}", said.numbers
    )
    for line in filter(None, (said.others, said.notes)):
        out += Markup("<br><small>{}</small>").format(line)
    if source is not None and record["k"]:
        threshold = float(np.nan_to_num(u.threshold[unit]))
        shown = [_masked(source, x, threshold, px) for x in card.exemplars[: record["k"]]]
        coded = io.BytesIO()
        Image.fromarray(np.concatenate(shown, axis=1)).save(coded, "JPEG", quality=QUALITY)
        alt = escape(f"Unit {unit}, {said.label}: top images")
        src = base64.b64encode(coded.getvalue()).decode("ascii")
        out += Markup('<br><img alt="{}" src="data:image/jpeg;base64,{}">').format(alt, src)
    return str(out + Markup("</div>"))


def _masked(source: ImageSource, exemplar: Exemplar, threshold: float, px: int) -> np.ndarray:
    """The thumbnail with everything outside the mask dimmed, uint8 [px, px, 3]."""
    thumb = source.thumb(exemplar.position, px)
    if thumb is None:
        return images.missing(px)
    return thumb if exemplar.map is None else images.dimmed(thumb, images.mask(exemplar.map, threshold, (px, px)))
