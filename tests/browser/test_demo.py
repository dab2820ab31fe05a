"""The demo, dissected with a null: what its pages show, unit by unit, is what the queries and the database say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import broden
import dissect
from dissect.cli.main import main
from reports import data, text

IMAGES, DRAWS = 240, 20


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    broden.synth(root / "data", images=IMAGES, size=128, seed=3)
    words = ["run", "demo", "--layer", "conv5", "--data", str(root / "data"), "--name", "demo", "--null", str(DRAWS)]
    assert main([*words, "--workspace", str(root / "work")]) == 0
    return root / "work"


@pytest.fixture(scope="module")
def rows(workspace: Path) -> list[dict[str, Any]]:
    """Every unit as Python's query gives it."""
    return dissect.open(workspace).units(run="demo").rows


def test_command_python_and_database_agree(
    workspace: Path, rows: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["query", "units", "--run", "demo", "--format", "json", "--workspace", str(workspace)]) == 0
    assert json.loads(capsys.readouterr().out) == rows
    stored = dissect.open(workspace).sql("SELECT * FROM v_units ORDER BY iou DESC, unit").rows
    assert [{name: row[name] for name in rows[0]} for row in stored] == rows
    assert len(rows) == 128
    assert all(row["iou_null"] is not None and row["q_value"] is not None for row in rows)


def test_plain_pages_show_the_rows(workspace: Path, rows: list[dict[str, Any]]) -> None:
    """IoU, its integers, interval, stability, chance and threshold of every unit, as text."""
    html = (workspace / "reports/demo/layers/0-conv5/plain-0.html").read_text()
    cards = dict(re.findall(r'id="unit-(\d+)"><h2>.*?</h2><p>(.*?)</p>', html))
    assert len(cards) == len(rows)
    for row in rows:
        if row["concept"] is None:
            assert cards[str(row["unit"])].startswith("IoU 0;")
            continue
        i, a, g = (text.integer(row[name]) for name in ("intersection", "unit_area", "concept_area"))
        wanted = f"{row['category']}, IoU {row['iou']:.4f} = {i} / ({a} + {g} − {i})"
        if row["iou_low"] is not None:
            wanted += f", 95 % interval {row['iou_low']:.4f} to {row['iou_high']:.4f}"
        wanted += f", the best label in {text.percent(row['stability'])} of redrawn image sets"
        wanted += (
            f", q = {row['q_value']:.4g} where chance gives IoU {row['iou_null']:.4f}; T = {row['threshold']:.4g}."
        )
        wanted += f" Precision {text.percent(row['precision'])}, recall {text.percent(row['recall'])}"
        if row["phi"] is not None:
            wanted += f", correlation over pixels {row['phi']:.3f}"
        if row["ap"] is not None:
            wanted += f", average precision over images {row['ap']:.3f}"
        wanted += "."
        assert cards[str(row["unit"])] == wanted


def test_data_files_hold_the_rows(workspace: Path, rows: list[dict[str, Any]]) -> None:
    base = workspace / "reports/demo/layers/0-conv5"
    _, columns = data.parse((base / "units-0.js").read_text())
    by_column = {
        "intersection": "intersection", "area": "unit_area", "threshold": "threshold", "low": "iou_low",
        "high": "iou_high", "null": "iou_null", "p": "p_value", "q": "q_value", "stability": "stability",
        "phi": "phi", "iqr": "iqr", "ap": "ap",
    }  # fmt: skip
    for row in rows:
        assert {n: columns[n][row["unit"]] for n in by_column} == {n: row[name] for n, name in by_column.items()}
    best = dissect.open(workspace).units(run="demo", rank="all")
    pairs = {(row["unit"], row["rank"]): row for row in best.rows}
    names = {c.number: c.name for c in _concepts(workspace)}
    for first in range(0, len(rows), 32):
        _, found = data.parse((base / f"data/{first:05d}.js").read_text())
        for at, record in enumerate(found):
            for rank, (concept, i, a) in enumerate(record["b"], 1):
                row = pairs[first + at, rank]
                assert (names[concept], i, a) == (row["concept"], row["intersection"], row["unit_area"])


def _concepts(workspace: Path) -> Any:
    with dissect.open(workspace).store() as store:
        return store.concepts(store.get_run("demo").id)


@pytest.mark.browser
def test_the_page_exports_and_shows_the_rows(visit: Any, workspace: Path, rows: list[dict[str, Any]]) -> None:
    """What the page saves is what the query gives, to the last digit; every card in the list has the row's numbers."""
    seen = visit(workspace / "reports")
    page = seen.go("demo/layers/0-conv5/index.html#sort=iou", "#rows .row")
    with page.expect_download() as download:
        page.click("#json")
    saved = json.loads(Path(download.value.path()).read_text())
    assert saved == rows
    shown: dict[int, list[str]] = {}
    page.evaluate("document.getElementById('list').scrollIntoView()")
    for _ in range(60):
        found = page.evaluate(
            "[...document.querySelectorAll('#rows .row')].map(r => [+r.querySelector('a').dataset.unit,"
            " ...['.name', '.score', '.ints'].map(c => r.querySelector(c).textContent)])"
        )
        shown |= {unit: texts for unit, *texts in found}
        page.evaluate("scrollBy(0, 800)")
        page.wait_for_timeout(20)
    assert len(shown) == len(rows)
    for row in rows:
        name, score, integers = shown[row["unit"]]
        assert score == f"IoU {row['iou']:.4f}"
        if row["concept"] is not None:
            assert name == text.shown(row["concept"], row["category"])
            i, a, g = (text.integer(row[key]) for key in ("intersection", "unit_area", "concept_area"))
            assert integers.startswith(f"I {i} · A {a} · G {g} · T ")
    firm = sum(row["iou"] > 0.04 and row["q_value"] < 0.05 for row in rows)
    chosen = sum(row["iou"] > 0.04 for row in rows)
    assert page.inner_text("#sentence").startswith(f"{chosen} of 128 units are detectors of ")
    assert page.inner_text("#sentence").endswith(f", {firm} of them at q\u00a0<\u00a00.05.")
    seen.clean()
