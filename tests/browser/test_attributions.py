"""The page of attributions in a browser: accessible, by keyboard, in both schemes, at every width, hostile text."""

from pathlib import Path
from typing import Any

import pytest

import reports
from tests.browser.test_hostile import ALL
from tests.reports.test_attribution import page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("attributions")
    reports.write_attributions(page(), out)
    reports.write_attributions(page(ALL), out / "hostile")
    return out


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit: Any, folder: Path, axe: str, scheme: str) -> None:
    seen = visit(folder, scheme)
    shown = seen.go("_attributions/index.html")
    shown.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    shown.evaluate(axe)
    result = shown.evaluate("axe.run(document, {preload: false, resultTypes: ['violations']})")
    assert [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in result["violations"]] == []
    seen.clean()


@pytest.mark.parametrize("width", [320, 900, 1600])
@pytest.mark.parametrize("name", ["_attributions", "hostile/_attributions"])
def test_no_sideways_scrolling(visit: Any, folder: Path, width: int, name: str) -> None:
    seen = visit(folder, width=width)
    assert seen.go(f"{name}/index.html").evaluate("document.documentElement.scrollWidth") <= width
    seen.clean()


def test_hostile_text_runs_nothing(visit: Any, folder: Path) -> None:
    seen = visit(folder)
    shown = seen.go("hostile/_attributions/index.html")
    assert shown.evaluate("window.hit") is None
    assert shown.evaluate("document.querySelector('h1').textContent").split() == ALL.split()
    seen.clean()


def test_details_open_by_keyboard(visit: Any, folder: Path) -> None:
    seen = visit(folder)
    shown = seen.go("_attributions/index.html")
    summary = shown.locator("summary").first
    for _ in range(40):
        shown.keyboard.press("Tab")
        if summary.evaluate("e => e === document.activeElement"):
            break
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.querySelector('details').open")
    seen.clean()
