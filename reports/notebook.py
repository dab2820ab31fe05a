"""One unit as a piece of HTML for a notebook: a card that needs no other file."""

import base64

import numpy as np
from markupsafe import Markup, escape

from . import images
from .layer import flags
from .pages import ImageSource, LayerPage, RunPage
from .records import records, why

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
    (record,), pixels = records([card], layer.units.threshold[unit : unit + 1], px, thumbs, source)
    u = layer.units
    concepts = {c.number: c for c in run.concepts}
    told = why(
        record, concepts.get(int(u.concept[unit])), int(u.intersection[unit]), int(u.unit_area[unit]),
        float(u.iou[unit]), float(u.threshold[unit]), flags(layer, unit), concepts,
    )  # fmt: skip
    out = Markup('<div style="{}"><b>{} {}</b> <span>{}</span><br>{}').format(
        STYLE, unit, told.label, f"{run.name}, {layer.name}", told.numbers
    )
    for line in filter(None, (told.others, told.notes)):
        out += Markup("<br><small>{}</small>").format(line)
    if pixels is not None:
        shown = pixels[:, : record["k"]]
        for k, x in enumerate(card.exemplars[: record["k"]]):
            if x.map is not None:
                inside = images.mask(x.map, float(np.nan_to_num(u.threshold[unit])), (px, px))
                shown[0, k] = images.dimmed(shown[0, k], inside)
        coded = base64.b64encode(images.sheet(shown, 80)).decode("ascii")
        alt = escape(f"Unit {unit}, {told.label}: top images")
        out += Markup('<br><img alt="{}" src="data:image/webp;base64,{}">').format(alt, coded)
    return str(out + Markup("</div>"))
