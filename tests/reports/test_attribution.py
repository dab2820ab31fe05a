"""The page of attributions: complete, escaped, equal for equal input, and honest about what is gone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import reports
from reports.attribution import (
    AttributionsPage,
    CarriersView,
    CarrierView,
    Cell,
    ConceptSum,
    Decision,
    JudgedRow,
    JudgementView,
    MapView,
    OccluderView,
    Overlay,
)
from reports.pages import Fact

HOSTILE = "<script>alert(1)</script>&\"'"


def picture(level: int = 90, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


def page(name: str = "dog", gone: bool = False) -> AttributionsPage:
    """Every part of the page, with `name` in every place that shows text."""
    overlay = Overlay(name, lambda: None if gone else picture())
    peak = np.zeros((7, 7), np.float32)
    peak[2, 3] = -2.0
    carriers = tuple(
        CarrierView(u, name if u else None, name, 0.25, u != 1, 0.5 - u, 0.25, peak, overlay, "../r/index.html#unit=3")
        for u in range(8)
    )
    decision = Decision(
        "d1", name, name, name, 1.5, Overlay(name, overlay.read),
        (MapView(name, (overlay,), name, (Fact(name, name),), (Fact(name, name),)),
         MapView(name, (overlay, overlay, overlay))),
        (CarriersView(name, name, name, carriers, (ConceptSum(name, name, 2, -0.5), ConceptSum(None, None, 3, 1.0))),),
        (OccluderView((name, name), np.array([[1.0, 0.25], [0.25, 1.0]]), 0.25, (overlay, overlay)),),
        (Fact(name, name),),
    )  # fmt: skip
    rows = (
        JudgedRow("guided", False, (Cell(0.75, 0.1), Cell(0.25, 0.1))),
        JudgedRow("gradient", False, (Cell(0.5, 0.1), Cell(0.125, None))),
        JudgedRow("constant", True, (Cell(0.9, 0.0), Cell(0.01, 0.0))),
    )
    scores = (("pointing", "high is good"), (name, "low is good"))
    table = JudgementView("j1", name, name, scores, rows, (Fact(name, name),))
    return AttributionsPage(name, (decision,), (table,))


def test_everything_is_on_the_page_and_every_link_leads_to_a_file(tmp_path: Path) -> None:
    index = reports.write_attributions(page(), tmp_path)
    html = index.read_text(encoding="utf-8")
    assert index == tmp_path / "_attributions/index.html"
    sources = {part.split('"')[0] for part in html.split('src="')[1:]}
    assert sources
    for source in sources:
        assert Image.open(index.parent / source).size == (60, 40)
    assert html.count('class="line c') == 2 * 6  # six outlines, six swatches
    assert html.count("#unit=3") == 8
    assert "below the cut" in html
    assert "−0.5" in html
    # Units that detect nothing come last, without a bar that would dwarf those that detect something.
    assert html.index("units that detect nothing") > html.index("−0.5")
    assert html.count('class="balance"') == 1
    # The best of each column, by its own direction, among those that are no baselines.
    assert html.count("<b>0.750</b>") == html.count("<b>0.125</b>") == 1
    assert "<b>0.900</b>" not in html
    assert 'class="blind"' in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_equal_pages_are_equal_bytes_and_replace_the_old_ones(tmp_path: Path) -> None:
    first = reports.write_attributions(page(), tmp_path)
    kept = {path.name: path.read_bytes() for path in first.parent.iterdir()}
    (first.parent / "left-over.webp").write_bytes(b"")
    reports.write_attributions(page(), tmp_path)
    assert {path.name: path.read_bytes() for path in first.parent.iterdir()} == kept


def test_hostile_text_is_text(tmp_path: Path) -> None:
    html = reports.write_attributions(page(HOSTILE), tmp_path).read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_what_is_gone_is_said(tmp_path: Path) -> None:
    html = reports.write_attributions(page(gone=True), tmp_path).read_text(encoding="utf-8")
    assert "the file is gone" in html
    assert "<img" not in html
    empty = replace(page(), decisions=(), judgements=())
    assert "Nothing was attributed yet" in reports.write_attributions(empty, tmp_path).read_text(encoding="utf-8")
