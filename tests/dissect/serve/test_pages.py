"""Pages over HTTP are the files on disk; each is JSON and CSV as well; nothing else of the disk is reachable."""

import csv
import io
import os
from pathlib import Path
from typing import Any

import pytest

from dissect.serve.page_tables import page_tables
from dissect.serve.pages import TYPES, inside
from tests.dissect.serve.conftest import make_client


def test_pages_are_the_files(client: Any, served: Path) -> None:
    root = served / "reports"
    seen = 0
    for path in sorted(root.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts):
            answer = client.get(f"/reports/{path.relative_to(root).as_posix()}")
            assert (answer.status_code, answer.content) == (200, path.read_bytes())
            assert answer.headers["content-type"].startswith(TYPES[path.suffix].split(";")[0])
            seen += 1
    assert seen > 30
    assert client.get("/").text == (root / "index.html").read_text()
    assert client.get("/reports/first").text == (root / "first/index.html").read_text()


def test_a_page_holds_until_it_is_written_again(client: Any, served: Path) -> None:
    path = "/reports/first/index.html"
    tag = client.get(path).headers["etag"]
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304
    (served / "reports/first/index.html").touch()
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 200


def test_every_page_has_its_rows(client: Any, served: Path) -> None:
    """As JSON and as CSV, whatever page it is."""
    for path in sorted((served / "reports").rglob("*.html")):
        stem = path.relative_to(served / "reports").with_suffix("").as_posix()
        found = client.get(f"/reports/{stem}.json")
        assert found.status_code == 200, stem
        assert {"rows", "tables"} & found.json().keys(), stem
        assert client.get(f"/reports/{stem}.csv").headers["content-type"].startswith("text/csv"), stem


def test_rows_of_pages_are_those_of_queries(client: Any, work: Any, served: Path) -> None:
    def rows(path: str) -> list[dict]:
        return list(csv.DictReader(io.StringIO(client.get(path).text)))

    assert [r["name"] for r in rows("/reports/index.csv")] == ["first", "second", "unfinished"]
    assert [r["layer"] for r in rows("/reports/first/index.csv")] == ["conv", "fc"]
    units = rows("/reports/first/layers/1-fc/index.csv")
    assert [(int(r["unit"]), float(r["iou"])) for r in units] == [
        (r["unit"], r["iou"]) for r in work.units(run="first", layer="fc").rows
    ]
    labels = rows("/reports/first/layers/1-fc/labels.csv")
    assert {r["concept"] for r in labels} == set(
        work.concepts(run="first", layer="fc", detectors=True).column("concept")
    )
    number = next((served / "reports/first/concepts").iterdir()).stem
    units = rows(f"/reports/first/concepts/{number}.csv")
    assert units
    assert len({r["concept"] for r in units}) == 1
    compared = client.get(f"/reports/{next((served / 'reports').glob('compare-*')).name}/index.json").json()["tables"]
    assert compared[0]["columns"][:2] == ["Column", "Run"]
    assert [row[0] for row in compared[0]["rows"]] == ["A", "B"]


OUTSIDE = [
    "../dissect.sqlite", "%2e%2e/dissect.sqlite", "..%2fdissect.sqlite", "first/../../dissect.sqlite", "/etc/passwd",
    "first//index.html", "first/%00index.html", "first\\index.html", "first/layers/..\\..\\x.html",
    ".hidden/index.html",
    "first/.secret.html", "link/index.html", "link.html", "folder.html", "first/index.html/", "secret.sqlite",
    "first/layers/0-conv/digest.sqlite", "a" * 2000 + ".html", "%ff%fe.html", "~/index.html", "first/index.htm",
]  # fmt: skip


@pytest.fixture(scope="module")
def traps(served: Path) -> Any:
    """Links out of the folder, hidden files, files of other kinds."""
    root = served / "reports"
    (served / "outside").mkdir()
    for name in ("outside/index.html", "reports/secret.sqlite", "reports/first/.secret.html"):
        (served / name).write_text("SECRET")
    (root / ".hidden").mkdir()
    (root / ".hidden/index.html").write_text("SECRET")
    os.symlink(served / "outside", root / "link")
    os.symlink(served / "outside/index.html", root / "link.html")
    (root / "folder.html").mkdir()
    yield
    (root / "link").unlink()
    (root / "link.html").unlink()
    (root / "folder.html").rmdir()


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_else_is_reachable(client: Any, traps: None, path: str) -> None:
    answer = client.get(f"/reports/{path}")
    assert answer.status_code == 404
    assert "SECRET" not in answer.text


def test_a_loop_of_links_is_no_page(tmp_path: Path) -> None:
    os.symlink(tmp_path / "a.html", tmp_path / "a.html")
    assert inside(tmp_path, "a.html") is None


def test_missing_pages_say_how_to_get_them(tmp_path: Path, served: Path) -> None:
    client = make_client(served)
    assert "`dissect report RUN`" in client.get("/reports/none/index.html").json()["error"]


def test_tables_of_a_page() -> None:
    html = (
        '<div role="region" aria-label="A &amp; B"><table><thead><tr><th>x<th>y</th></tr></thead><tbody><tr>'
        "<th>1</th><td><b>a</b>\n <i>&lt;b&gt;</i></td></tr></tbody></table></div>"
        "<table><caption>C</caption><tr><td>z</td>"
    )
    one, two = page_tables(html.replace("<th>y", "</th><th>y"))
    assert (one.name, one.columns, one.rows) == ("A & B", ["x", "y"], [["1", "a <b>"]])
    assert (two.name, two.columns) == ("C", [])
