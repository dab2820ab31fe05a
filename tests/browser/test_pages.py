"""The pages in a real browser, from disk, with the network off."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import reports
from reports import order
from reports.pages import (
    ComparedLayer,
    ComparePage,
    ListedLayer,
    ListedRun,
    RunPage,
    Sighting,
    WorkspaceConcept,
    WorkspacePage,
)
from tests.reports import synthetic

pytestmark = pytest.mark.browser
LAYER = "layers/1-layer4/index.html"


@pytest.fixture(scope="session")
def demo() -> RunPage:
    return synthetic.run(
        synthetic.layer(64, 0, "layer3", baseline=True, histogram=True), synthetic.layer(300, 1, "layer4", exemplars=6)
    )


@pytest.fixture(scope="session")
def folder(demo: RunPage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "run"
    reports.write_run(demo, out, synthetic.Pictures(absent=[7, 77]))
    return out


@pytest.fixture(scope="session")
def others(demo: RunPage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison and a workspace page."""
    out = tmp_path_factory.mktemp("others")
    columns = []
    for name, seed in (("a", 0), ("b", 5)):
        u = synthetic.layer(200, seed=seed).units
        columns.append(
            ComparedLayer(name, "m", "layer4", "exact", "f", 0.04, 200, u.concept, u.iou, None, bool(columns))
        )
    reports.write_compare(ComparePage("a and b", demo.concepts, demo.categories, tuple(columns)), out / "compare")
    runs = (ListedRun("1", "one", "m", "d", "finished", "exact", 10, (ListedLayer("l", 5, 2, 1),), None),)
    found = (WorkspaceConcept("dog", "object", (Sighting("one", "l", 2, 0.2, 3, None),)),)
    reports.write_workspace(WorkspacePage("All", runs, found), out)
    return out


PAGES = [
    "index.html",
    LAYER,
    f"{LAYER}#unit=3&mask=outline",
    "layers/0-layer3/index.html#unit=1",
    "layers/1-layer4/plain-1.html",
    "layers/1-layer4/labels.html",
    "concepts/12.html",
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit: Any, folder: Path, others: Path, axe: str, scheme: str) -> None:
    """No accessibility violation on any kind of page."""
    found = []
    for root, name in [*((folder, n) for n in PAGES), (others, "compare/index.html"), (others, "index.html")]:
        seen = visit(root, scheme)
        page = seen.go(name)
        if "layers" in name and "index" in name:
            page.wait_for_selector("#rows .strip")
        page.evaluate(axe)
        result = page.evaluate("axe.run(document, {preload: false, resultTypes: ['violations']})")
        told = [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in result["violations"]]
        found += [(name, violation) for violation in told]
        seen.clean()
    assert not found


@pytest.mark.parametrize("width", [320, 900, 1600])
def test_no_sideways_scrolling(visit: Any, folder: Path, others: Path, width: int) -> None:
    seen = visit(folder, width=width)
    for name in PAGES:
        page = seen.go(name)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    seen.clean()
    second = visit(others, width=width)
    for name in ("compare/index.html", "index.html"):
        assert second.go(name).evaluate("document.documentElement.scrollWidth") <= width, name
    second.clean()


def until(page: Any, expression: str) -> None:
    """Wait for an expression to be true, asking from outside: the page's own policy forbids evaluating text in it."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(25)
    raise AssertionError(expression)


def listed(page: Any) -> list[int]:
    """Units in the document, top to bottom."""
    return page.evaluate(
        "[...document.querySelectorAll('#rows .row')].sort((a, b) => a.dataset.k - b.dataset.k)"
        ".map(r => +r.querySelector('a').dataset.unit)"
    )


def exported(page: Any) -> list[dict[str, Any]]:
    """What the JSON button saves."""
    with page.expect_download() as download:
        page.click("#json")
    return json.loads(Path(download.value.path()).read_text(encoding="utf-8"))


def test_every_unit_is_shown_with_the_numbers_of_the_page_objects(visit: Any, folder: Path, demo: RunPage) -> None:
    """Order, IoU to the last bit, integers, thresholds: for every unit; CSV and JSON alike."""
    seen = visit(folder)
    page = seen.go(LAYER, "#rows .row")
    layer = demo.layers[1]
    u = layer.units
    rows = exported(page)
    concepts = {c.number: c for c in demo.concepts}
    bars = order.bars(u.concept, u.iou, demo.cut, concepts, demo.categories)
    assert [r["unit"] for r in rows] == order.published(u.concept, u.iou, demo.cut, bars).tolist()
    for r in rows:
        at, number = r["unit"], int(u.concept[r["unit"]])
        assert r["iou"] == float(u.iou[at])
        assert (r["intersection"], r["unit_area"]) == (int(u.intersection[at]), int(u.unit_area[at]))
        assert r["concept"] == (concepts[number].name if number >= 0 else None)
        assert r["threshold"] == (float(u.threshold[at]) if np.isfinite(u.threshold[at]) else None)
    with page.expect_download() as download:
        page.click("#csv")
    table = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [(int(t["unit"]), float(t["iou"]), t["concept"]) for t in table] == [
        (r["unit"], r["iou"], r["concept"] or "") for r in rows
    ]
    seen.clean()


def test_slider_counts_follow(visit: Any, folder: Path, demo: RunPage) -> None:
    """At any cut the sentence, the bars and the greying are those of the published rule."""
    seen = visit(folder)
    page = seen.go(LAYER, "#rows .row")
    u = demo.layers[1].units
    concepts = {c.number: c for c in demo.concepts}
    for cut in (0.0, 0.02, 0.051, 0.12):
        page.evaluate(f"{{const c=document.getElementById('cut'); c.value={cut}; c.dispatchEvent(new Event('input'))}}")
        until(page, f"document.getElementById('cut-value').textContent==='{cut:g}'")
        bars = order.bars(u.concept, u.iou, cut, concepts, demo.categories)
        total = int(order.detectors(u.concept, u.iou, cut).sum())
        assert page.text_content("#sentence") == (
            f"{total} of 300 units are detectors of {len(bars)} distinct concepts at IoU > {cut:g}."
        )
        drawn = page.evaluate(
            "[...document.querySelectorAll('#bars a')].map(a=>[+a.dataset.s,+a.querySelector('.count').textContent])"
        )
        assert drawn == [[b.concept.number, b.units] for b in bars]
        grey = page.evaluate("[...document.querySelectorAll('#rows .row.below a')].map(a=>+a.dataset.unit)")
        assert all(not u.iou[k] > cut for k in grey)
    seen.clean()


def test_filters_and_sorts(visit: Any, folder: Path, demo: RunPage) -> None:
    seen = visit(folder)
    page = seen.go(LAYER, "#rows .row")
    u = demo.layers[1].units
    names = {c.number: c for c in demo.concepts}

    def shown() -> list[int]:
        page.wait_for_timeout(60)
        return [r["unit"] for r in exported(page)]

    page.fill("#q", "DOG")
    dog = next(c.number for c in demo.concepts if c.name == "dog")
    assert sorted(shown()) == np.flatnonzero(u.concept == dog).tolist()
    page.fill("#q", "17")
    assert shown() == [17]
    page.click("button[type=reset]")
    page.select_option("#category", "texture")
    mine = [k for k in range(300) if u.concept[k] >= 0 and names[int(u.concept[k])].category == "texture"]
    assert sorted(shown()) == mine
    page.fill("#min", "0.05")
    assert sorted(shown()) == [k for k in mine if u.iou[k] >= 0.05]
    page.fill("#max", "0.1")
    assert sorted(shown()) == [k for k in mine if 0.05 <= u.iou[k] <= 0.1]
    page.click("button[type=reset]")
    page.select_option("#show", "odd")
    assert sorted(shown()) == np.flatnonzero(u.dead | u.saturated | u.nonfinite).tolist()
    page.select_option("#show", "detectors")
    page.click("#heads button:text-is('IoU')")
    by_iou = shown()
    assert by_iou == sorted(by_iou, key=lambda k: (-u.iou[k], k))
    assert page.get_attribute("#heads [data-key=iou]", "aria-sort") == "descending"
    page.click("#heads button:text-is('IoU')")
    assert shown() == by_iou[::-1]
    assert page.get_attribute("#heads [data-key=iou]", "aria-sort") == "ascending"
    bar = page.locator("#bars a").first
    number = int(bar.get_attribute("data-s"))
    page.click("button[type=reset]")
    bar.dispatch_event("click")
    assert sorted(shown()) == np.flatnonzero(u.concept == number).tolist()
    seen.clean()


def test_what_one_may_believe_can_be_chosen_and_sorted(visit: Any, folder: Path, demo: RunPage) -> None:
    """The layer with q-values has an option and a column for them; the other layer has neither."""
    seen = visit(folder)
    page = seen.go("layers/0-layer3/index.html", "#rows .row")
    u = demo.layers[0].units
    page.select_option("#show", "firm")
    page.wait_for_timeout(60)
    assert sorted(r["unit"] for r in exported(page)) == np.flatnonzero((u.iou > 0.04) & (u.q < 0.05)).tolist()
    page.select_option("#show", "")
    for key, column in (("q", u.q), ("G", None)):
        page.click(f"#heads button:text-is('{key}')")
        page.wait_for_timeout(60)
        found = [r["q_value" if column is not None else "concept_area"] for r in exported(page)]
        assert found == sorted(found, reverse=column is None)
    page = seen.go(LAYER, "#rows .row")
    assert page.locator("#show option[value=firm]").count() == 0
    assert page.locator("#heads [data-key=q]").count() == 0
    seen.clean()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_figure_as_a_picture(visit: Any, folder: Path, scheme: str) -> None:
    """PNG at twice the size of the drawing, on the paper of the page, with something on it."""
    seen = visit(folder, scheme=scheme)
    page = seen.go(LAYER, "#rows .row")
    width, height = page.evaluate(
        "(s => [s.width.baseVal.value, s.height.baseVal.value])(document.querySelector('#bars svg'))"
    )
    with page.expect_download() as download:
        page.click("#png")
    with Image.open(Path(download.value.path())) as picture:
        assert picture.format == "PNG"
        assert picture.size == (2 * round(width), 2 * round(height))
        pixels = np.asarray(picture.convert("L")).astype(int)
    paper = 254 if scheme == "light" else 22
    assert abs(pixels[0, 0] - paper) <= 2
    assert 0.05 < (np.abs(pixels - paper) > 40).mean() < 0.6
    seen.clean()


def test_the_address_keeps_the_view(visit: Any, folder: Path) -> None:
    """Everything set by hand is in the address; opening the address again gives the same view."""
    seen = visit(folder)
    page = seen.go(LAYER, "#rows .row")
    page.select_option("#category", "object")
    page.fill("#min", "0.02")
    page.select_option("#mask", "outline")
    page.click("#heads button:text-is('unit')")
    page.wait_for_timeout(250)
    before, hash_ = listed(page), page.evaluate("location.hash")
    again = seen.go(LAYER + hash_, "#rows .row")
    again.reload()
    again.wait_for_selector("#rows .outline")
    assert listed(again) == before
    page.evaluate("location.hash='#unit=5'")
    page.wait_for_selector("#unit[open] #unit-title")
    assert "unit 5" in page.text_content("#unit .kicker")
    seen.clean()


def test_keyboard_tour(visit: Any, folder: Path) -> None:
    """Filter, sort, move, open, step, mask styles, segmentation, close, without a mouse; focus is always visible."""
    seen = visit(folder)
    page = seen.go(LAYER, "#rows .strip")
    key = page.keyboard
    focused = "document.activeElement.dataset.unit"
    key.press("j")
    first = page.evaluate(focused)
    key.press("j")
    assert page.evaluate(focused) != first
    key.press("k")
    assert page.evaluate(focused) == first
    key.press("End")
    last = page.evaluate("+document.activeElement.closest('.row').dataset.k")
    assert last == 299
    key.press("Home")
    assert page.evaluate(focused) == first
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    key.press("Enter")
    page.wait_for_selector("#unit[open] .gallery img")
    title = page.text_content("#unit .kicker")
    key.press("j")
    until(page, f"document.querySelector('#unit .kicker').textContent !== {json.dumps(title)}")
    key.press("m")
    page.wait_for_selector("#unit .outline")
    key.press("m")
    page.wait_for_selector("#unit canvas.heat")
    key.press("m")
    until(page, "!document.querySelector('#unit .gallery svg, #unit .gallery canvas')")
    key.press("m")
    page.wait_for_selector("#unit .veil")
    key.press("s")
    page.wait_for_selector("#unit canvas")
    assert "Labels:" in page.text_content("#unit .gallery")
    key.press("s")
    key.press("Escape")
    until(page, "!document.getElementById('unit').open")
    assert page.evaluate(focused) is not None
    until(page, "!location.hash.includes('unit=')")  # the address follows a moment later
    key.press("Enter")
    page.wait_for_selector("#unit[open] .gallery img")
    until(page, "location.hash.includes('unit=')")
    key.press("/")  # from an open unit, too
    until(page, "!location.hash.includes('unit=')")
    assert page.evaluate("document.activeElement.id") == "q"
    key.type("cat")
    key.press("Escape")
    key.press("?")
    assert page.evaluate("document.getElementById('keys').open")
    key.press("Escape")
    until(page, "location.hash.includes('q=cat')")
    seen.clean()


def test_pointing_names_the_concept(visit: Any, folder: Path, demo: RunPage) -> None:
    seen = visit(folder)
    page = seen.go(f"{LAYER}#unit=0", "#unit[open] .gallery img")
    page.click("#seg")
    page.wait_for_selector("#unit .frame canvas")
    frame = page.locator("#unit .frame").first
    box = frame.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    names = {c.number: c for c in demo.concepts}
    position = demo.layers[1].cards(0, 1)[0].exemplars[0].position
    concept = names[1 + position % 40]
    assert page.text_content("#under").split(", ")[0] == reports.shown(concept.name, concept.category)
    seen.clean()


def test_missing_images_are_said(visit: Any, folder: Path, demo: RunPage) -> None:
    layer = demo.layers[1]
    unit = next(
        c.unit for c in layer.cards(0, 300) if c.exemplars and any(e.position in (7, 77) for e in c.exemplars[:6])
    )
    seen = visit(folder)
    page = seen.go(f"{LAYER}#unit={unit}", "#unit[open] .gallery")
    assert "missing" in page.text_content("#unit .gallery")
    assert "picture missing" in page.text_content("#under") or "pictures missing" in page.text_content("#under")
    seen.clean()


def test_without_script_everything_is_readable(visit: Any, folder: Path, demo: RunPage) -> None:
    """Bars are links, the units stand on plain pages of 200, with the same labels and masks."""
    seen = visit(folder, script=False)
    page = seen.go(LAYER)
    assert page.locator("#bars a").count() == page.locator("#bars a[href^='../../concepts/']").count() > 0
    assert page.locator("noscript a, p.pages a").count() >= 2
    page = seen.go("layers/1-layer4/plain-0.html")
    assert page.locator("article").count() == 200
    assert page.locator("article .veil").count() > 150
    assert page.locator("#unit-17").text_content().strip().startswith("17")
    seen.clean()


def test_interval_null_and_q_only_where_measured(visit: Any, folder: Path) -> None:
    seen = visit(folder)
    page = seen.go("layers/0-layer3/index.html", "#rows .whisker")
    assert page.locator("#bars .pale").count() > 0
    page = seen.go("layers/0-layer3/index.html#unit=0", "#unit[open]")
    assert "95 % interval" in page.text_content("#unit")
    assert "By chance" in page.text_content("#unit")
    assert page.locator("#unit h3:text-is('Activations')").count() == 1
    page = seen.go(f"{LAYER}#unit=0", "#unit[open]")
    assert page.locator(".whisker, .null, .pale, #unit h3:text-is('Activations')").count() == 0
    assert "By chance" not in page.text_content("#unit")
    seen.clean()


def test_nothing_moves_while_loading(visit: Any, folder: Path) -> None:
    """Cumulative layout shift of the list and of a plain page is 0."""
    seen = visit(folder)
    watch = (
        "window.shift = 0; new PerformanceObserver(l => l.getEntries().forEach(e => { window.shift += e.value }))"
        ".observe({type: 'layout-shift', buffered: true})"
    )
    page = seen.go("layers/1-layer4/plain-0.html")
    page.evaluate(watch)
    page.mouse.wheel(0, 4000)
    page.wait_for_timeout(300)
    assert page.evaluate("window.shift") < 0.01
    seen.clean()
