"""A browser without a network, and what it saw. Skips, with the reason, where Chromium or Playwright is missing."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium."""
    program = os.environ.get("DISSECT_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium (Debian: apt-get install chromium; or set DISSECT_CHROMIUM)")
    driver = pytest.importorskip("playwright.sync_api", reason="Playwright's Python package is missing")
    with driver.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page and everything that it asked for or complained about."""

    page: Any
    root: Path
    outside: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def go(self, path: str, wait: str | None = None) -> Any:
        """Open a page of the folder by its file."""
        self.page.goto(f"file://{self.root}/{path}")
        if wait:
            self.page.wait_for_selector(wait)
        return self.page

    def clean(self) -> None:
        """Nothing left the folder, nothing was missing, nothing was printed, no dialog opened."""
        assert not self.outside
        assert not self.failed
        assert not self.complaints
        assert not self.dialogs


@pytest.fixture
def visit(chromium: Any) -> Iterator[Any]:
    """visit(folder, scheme=…, width=…, script=…) -> Visit; everything is closed at the end."""
    contexts = []

    def open_visit(root: Path, scheme: str = "light", width: int = 1100, script: bool = True) -> Visit:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script, offline=True,
            accept_downloads=True,
        )  # fmt: skip
        contexts.append(context)
        seen = Visit(context.new_page(), root)
        seen.page.on("request", lambda r: seen.outside.append(r.url) if not _inside(r.url, root) else None)
        seen.page.on(
            "requestfailed", lambda r: seen.failed.append(r.url) if "ERR_ABORTED" not in (r.failure or "") else None
        )  # aborted: the page was left before its icon was read
        seen.page.on("console", lambda m: seen.complaints.append(m.text) if m.type in ("error", "warning") else None)
        seen.page.on("pageerror", lambda e: seen.complaints.append(str(e)))
        seen.page.on("dialog", lambda d: (seen.dialogs.append(d.message), d.dismiss()))
        return seen

    yield open_visit
    for context in contexts:
        context.close()


def _inside(url: str, root: Path) -> bool:
    return url.startswith((f"file://{root}/", "blob:")) or url == "about:blank"


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core: $AXE_CORE, or the folder of an npm installation that CI makes."""
    named = os.environ.get("AXE_CORE")
    places = [Path(named)] if named else []
    places += [
        Path("node_modules/axe-core/axe.min.js"),
        Path(os.environ.get("TMPDIR", "/tmp")) / "axe-core/node_modules/axe-core/axe.min.js",
    ]
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8")
    pytest.skip("axe-core is missing (npm install axe-core, and set AXE_CORE to its axe.min.js)")
