"""The card of a notebook: escaped, complete, with the masked pictures in it."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from reports import images
from reports.notebook import card_html
from reports.pages import Concept
from tests.reports import synthetic


def test_card_shows_label_integers_and_masked_pictures() -> None:
    run = synthetic.small(8)
    layer, source = run.layers[0], synthetic.Pictures()
    html = card_html(run, layer, 3, source, thumbs=2)
    concept = next(c for c in run.concepts if c.number == layer.units.concept[3])
    assert concept.name in html
    assert f"{layer.units.iou[3]:.4f}" in html
    coded = re.search(r"data:image/jpeg;base64,([^\"]+)", html)
    assert coded
    with Image.open(io.BytesIO(base64.b64decode(coded[1]))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (112, 224, 3)
    x = layer.cards(3, 4)[0].exemplars[0]
    inside = images.mask(x.map, float(layer.units.threshold[3]), (112, 112))
    thumb = source.thumb(x.position, 112).astype(int)
    assert np.abs(pixels[:, :112][inside] - thumb[inside]).mean() < 15
    assert np.abs(pixels[:, :112][~inside] - thumb[~inside] / 5).mean() < 15


def test_card_escapes_everything() -> None:
    bad = "<img src=x onerror=alert(1)>'\"&"
    known = tuple(Concept(c.number, bad, c.category, c.area) for c in synthetic.concepts())
    run = synthetic.run(synthetic.layer(4, name=bad, known=known), known=known, name=bad)
    html = card_html(run, run.layers[0], 0, synthetic.Pictures())
    assert "<img src=x" not in html
    assert html.count("<img") == 1


def test_a_picture_that_is_gone_is_shown_as_missing() -> None:
    run = synthetic.small(8)
    gone = [x.position for x in run.layers[0].cards(3, 4)[0].exemplars[:1]]
    coded = re.search(r"base64,([^\"]+)", card_html(run, run.layers[0], 3, synthetic.Pictures(absent=gone), thumbs=2))
    assert coded
    with Image.open(io.BytesIO(base64.b64decode(coded[1]))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    wrong = np.abs(pixels.reshape(112, 2, 112, 3) - images.missing(112)[:, None]).mean((0, 2, 3))
    assert wrong[0] < 6 < wrong[1]


def test_unit_that_is_not_there() -> None:
    run = synthetic.small(4)
    with pytest.raises(IndexError, match="units 0 to 3, not 4"):
        card_html(run, run.layers[0], 4)
    assert "<img" not in card_html(run, run.layers[0], 0)
