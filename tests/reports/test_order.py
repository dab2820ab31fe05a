"""The published order against a plain sort, and the figure's layout."""

import dataclasses
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reports import charts, layer, order, text
from reports.pages import Concept
from tests.reports import synthetic

CONCEPTS = {c.number: c for c in synthetic.concepts()}


def slow_bars(label: list[int], iou: list[float], cut: float) -> list[tuple[int, int, float]]:
    rows: dict[int, list[float]] = {}
    for c, v in zip(label, iou):
        if c >= 0 and v > cut:
            rows.setdefault(c, []).append(v)
    rank = ["object", "scene", "part", "material", "texture", "color"]
    keyed = [(rank.index(CONCEPTS[c].category), -len(v), -max(v), c) for c, v in rows.items()]
    return [(c, -n, -best) for _, n, best, c in sorted(keyed)]


@given(
    st.lists(st.tuples(st.sampled_from([-1, *CONCEPTS]), st.sampled_from([0.0, 0.02, 0.04, 0.05, 0.3])), max_size=60)
)
@settings(max_examples=100, deadline=None)
def test_bars_and_units_in_published_order(units: list[tuple[int, float]]) -> None:
    label = np.array([c for c, _ in units], np.int64)
    iou = np.array([0.0 if c < 0 else v for c, v in units])
    bars = order.bars(label, iou, 0.04, CONCEPTS, synthetic.CATEGORIES)
    assert [(b.concept.number, b.units, b.best) for b in bars] == slow_bars(label.tolist(), iou.tolist(), 0.04)
    place = [b.concept.number for b in bars]
    key = lambda u: (place.index(label[u]) if label[u] >= 0 and iou[u] > 0.04 else len(place), -iou[u], u)  # noqa: E731
    assert order.published(label, iou, 0.04, bars).tolist() == sorted(range(len(units)), key=key)


def test_bars_count_what_one_may_believe() -> None:
    label, iou = np.array([1, 1, 1, 2, 2, -1]), np.array([0.1, 0.2, 0.03, 0.5, 0.06, 0.0])
    sure = np.array([True, False, True, False, False, True])
    bars = order.bars(label, iou, 0.04, CONCEPTS, synthetic.CATEGORIES, sure)
    assert [(b.concept.number, b.units, b.sure) for b in bars] == [(2, 2, 0), (1, 2, 1)]


def test_sentences_say_how_many_detectors_one_may_believe() -> None:
    plain, sure = synthetic.layer(50), synthetic.layer(50, 1, baseline=True)
    u = sure.units
    count = int(((u.iou > 0.04) & (u.concept >= 0) & (u.q < 0.05)).sum())
    assert count > 0
    assert layer.believed([sure, sure], 0.04) == f", {2 * count} of them at q\u00a0<\u00a00.05"
    assert layer.believed([plain], 0.04) == layer.believed([plain, sure], 0.04) == layer.believed([], 0.04) == ""
    only = dataclasses.replace(sure, units=dataclasses.replace(u, q=None, low=u.iou * 0.5))
    whole = int(((u.iou > 0.04) & (u.concept >= 0) & (u.iou * 0.5 > 0.04)).sum())
    assert 0 < whole < count
    assert layer.believed([only], 0.04) == f", {whole} of them with the whole 95 % interval above it"
    assert layer.believed([only, sure], 0.04) == ""
    assert layer.sentence(only, 0.04, []).endswith("at IoU > 0.04, " + layer.believed([only], 0.04)[2:] + ".")


def test_a_unit_at_the_cut_is_no_detector() -> None:
    assert not order.detectors(np.array([1]), np.array([0.04]), 0.04)[0]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=300), st.integers(560, 1400))
@settings(max_examples=60, deadline=None)
def test_chart_keeps_every_bar_inside_and_apart(counts: list[int], width: int) -> None:
    kinds = synthetic.CATEGORIES
    bars = [
        order.Bar(Concept(n, "x" * (1 + n % 40), kinds[n * len(kinds) // len(counts)], 1), c, 0.1, n % (c + 1))
        for n, c in enumerate(counts)
    ]
    names = {b.concept.number: b.concept.name for b in bars}
    chart = charts.bar_chart(bars, dict.fromkeys(kinds, 0), names, width)
    drawn = [c for band in chart.bands for c in band.columns]
    assert [c.bar for c in drawn] == charts.tallest(bars, charts.MOST)
    assert chart.left_out == max(len(bars) - charts.MOST, 0)
    assert all(c.x >= 0 and c.x + chart.pitch - 4 <= width and c.y + 126 <= chart.height for c in drawn)
    assert all(b.x - a.x >= chart.pitch or b.y > a.y for a, b in zip(drawn, drawn[1:]))
    assert max(c.height for c in drawn) == charts.RISE
    assert all(abs(c.solid - c.height * c.bar.sure / c.bar.units) <= 0.1 for c in drawn)


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([0.1, 0.2])), max_size=40), st.integers(0, 45))
def test_the_tallest_bars_stay_in_their_order(found: list[tuple[int, float]], most: int) -> None:
    bars = [order.Bar(Concept(n, "x", "object", 1), units, best, 0) for n, (units, best) in enumerate(found)]
    kept = charts.tallest(bars, most)
    assert [b.concept.number for b in kept] == sorted(b.concept.number for b in kept)
    assert len(kept) == min(most, len(bars))
    left = [b for b in bars if b not in kept]
    assert not kept or not left or min((b.units, b.best) for b in kept) >= max((b.units, b.best) for b in left)


def test_numbers_as_text() -> None:
    values = (0.0, -0.5, 12345.678, 1e-7, math.nan, math.inf, -math.inf, None)
    assert [text.number(v) for v in values] == ["0", "-0.5", "1.235e+04", "1e-07", "n/a", "n/a", "n/a", "n/a"]
    assert [text.signed(v) for v in values[:2] + values[4:5]] == ["+0", "−0.5", "n/a"]
    shares = (0.0, 0.001, 0.973, 0.999, 1.0)
    assert [text.percent(v) for v in shares] == ["0 %", "under 1 %", "97 %", "over 99 %", "100 %"]
    assert [text.plural(n, "unit") for n in (0, 1, 10_000)] == ["0 units", "1 unit", "10\u202f000 units"]
    assert text.plural(2, "category", "categories") == "2 categories"


def test_text() -> None:
    assert [text.integer(v) for v in (0, 9999, 10000, -1234567)] == ["0", "9999", "10\u202f000", "-1\u202f234\u202f567"]
    assert text.shown("street-s", "scene") == "street"
    assert text.shown("red-c", "color") == "red"
    assert text.shown("t-s", "object") == "t-s"
    assert text.shown("-s", "scene") == "-s"
    assert text.slug("../../etc/passwd") == "etc-passwd"
    assert text.slug("..") == "x"
    assert text.slug("") == "x"
    assert text.slug("features.18.1") == "features.18.1"
    assert text.category_order(("color", "mood", "object")) == ("object", "color", "mood")
