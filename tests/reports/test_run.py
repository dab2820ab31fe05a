"""The folder of a run: what is in it, that it is put in place at once, and that equal runs give equal bytes."""

import dataclasses
import json
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import reports
from reports import budget, data, environment, layer, pages
from reports import folder as folders
from reports.run import bibtex
from tests.reports import synthetic


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "r"
    reports.write_run(synthetic.run(synthetic.layer(70, 0, "a"), synthetic.layer(230, 1, "b/c", exemplars=3)), out,
                      synthetic.Pictures(absent=[3]))  # fmt: skip
    return out


def test_every_field_has_help() -> None:
    for name in dir(pages):
        kind = getattr(pages, name)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
                assert len(field.metadata.get("help", "")) > 5, (name, field.name)


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.nodes = 0
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.nodes += 1
        for name, value in attrs:
            if name in ("href", "src"):
                self.links.append(value or "")
            if name == "id":
                self.ids.add(value or "")
            if name == "style" or name.startswith("on"):
                self.inline.append(name)
        if tag == "script" and "src" not in dict(attrs):
            self.inline.append(tag)


def test_links_are_relative_and_lead_somewhere(built: Path) -> None:
    for path in built.rglob("*.html"):
        page = Links()
        page.feed(path.read_text(encoding="utf-8"))
        assert not page.inline, path
        assert page.nodes < 3000, path
        for link in page.links:
            assert not re.match(r"[a-z]+:|/|\\", link), (path, link)
            target, _, anchor = link.partition("#")
            to = (path.parent / target).resolve() if target else path
            assert to.is_file(), (path, link)
            if anchor and "=" not in anchor:
                other = Links()
                other.feed(to.read_text(encoding="utf-8"))
                assert anchor in other.ids, (path, link)


def test_sizes(built: Path) -> None:
    assert len((built / "report.js").read_bytes()) < 30_000
    assert all(len(c) <= 1_000_000 for n, c in files(built).items() if n.endswith(".html"))
    for word in ("eval(", "innerHTML", "outerHTML", "insertAdjacent", "document.write", "fetch(", "import("):
        assert word not in (built / "report.js").read_text()


def test_data_files_hold_the_page_objects(built: Path) -> None:
    page = synthetic.layer(230, 1, "b/c", exemplars=3)
    base = built / "layers/1-b-c"
    first, columns = data.parse((base / "units-0.js").read_text())
    assert first == 0
    assert columns["concept"] == page.units.concept.tolist()
    assert columns["intersection"] == page.units.intersection.tolist()
    assert "iou" not in columns
    assert "low" not in columns
    cards = page.cards(0, 230)
    for first in range(0, 230, layer.CHUNK):
        at, found = data.parse((base / f"data/{first:05d}.js").read_text())
        assert at == first
        for card, record in zip(cards[first : first + layer.CHUNK], found, strict=True):
            assert record["b"] == [[s.concept, s.intersection, s.unit_area] for s in card.best[:10]]
            assert [e[:5] for e in record["e"]] == [
                [x.position, x.image, x.activation, x.row, x.column] for x in card.exemplars
            ]


def test_scores_that_do_not_follow_from_the_integers_are_sent(tmp_path: Path) -> None:
    """An imported run may have rounded scores: the page shows those, not ours. All blocks carry the column."""
    page = synthetic.layer(40)
    rounded = dataclasses.replace(page, units=dataclasses.replace(page.units, iou=np.round(page.units.iou, 3)))
    sent = layer.columns(rounded, {c.number: c for c in synthetic.concepts()})
    assert sent["iou"] == np.round(page.units.iou, 3).tolist()


def test_thumbnail_of_a_unit_is_its_own(built: Path) -> None:
    """Row and column of a sheet hold the unit's exemplars in order."""
    source = synthetic.Pictures(absent=[3])
    card = synthetic.layer(230, 1, "b/c", exemplars=3).cards(101, 102)[0]
    with Image.open(built / "layers/1-b-c/img/00101.jpg") as picture:
        assert picture.size == (3 * 112, 112)
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    wanted = [source.thumb(x.position, 112) for x in card.exemplars]
    for k in range(3):
        far = [np.abs(pixels[:, k * 112 : (k + 1) * 112] - w).mean() for w in wanted if w is not None]
        assert len(far) == 3
        assert far.index(min(far)) == k


def test_many_units_share_sheets(tmp_path: Path) -> None:
    """Over 2,048 units the number of picture files stays below 2,100, and a row is still the right unit's."""
    page = synthetic.layer(2100, exemplars=1, size=(3, 3))
    source = synthetic.Pictures(40)
    reports.write_run(synthetic.run(page), tmp_path / "r", source)
    sheets = sorted((tmp_path / "r/layers/0-layer4/img").iterdir())
    assert len(sheets) <= 1050
    assert (sheets[0].name, sheets[-1].name) == ("00000-00001.jpg", "02098-02099.jpg")
    card = page.cards(2099, 2100)[0]
    with Image.open(sheets[-1]) as picture:
        px = picture.size[0]
        pixels = np.asarray(picture.convert("RGB")).astype(int)[px:]
    far = [np.abs(pixels - source.thumb(position, px)).mean() for position in range(40)]
    assert far.index(min(far)) == card.exemplars[0].position % 40


SCRIPT = """
import locale, os, sys, time
sys.path.insert(0, sys.argv[2])
time.time = lambda: 4e9
import reports
from pathlib import Path
from tests.reports import synthetic
page = synthetic.run(synthetic.layer(70, 0, "a"), synthetic.layer(230, 1, "b/c", exemplars=3))
reports.write_run(page, Path(sys.argv[1]), synthetic.Pictures(absent=[3]))
"""


def test_same_bytes_whatever_clock_folder_locale_and_hash_seed(built: Path, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    settings = {"LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "PATH": os.environ["PATH"]}
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "elsewhere"), str(root)], check=True, cwd=tmp_path, env=settings
    )
    assert files(tmp_path / "elsewhere") == files(built)


def test_no_absolute_path_and_no_host_in_any_file(built: Path) -> None:
    for name, content in files(built).items():
        if not name.endswith(".jpg"):
            assert str(built.parent).encode() not in content, name
            assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", content), name


def test_unchanged_layers_are_taken_over(tmp_path: Path) -> None:
    one, two = synthetic.layer(40, 0, "a"), synthetic.layer(40, 1, "b")
    out = tmp_path / "r"
    first = reports.write_run(synthetic.run(one, two), out, synthetic.Pictures())
    before = files(out)
    assert (first.redrawn, first.kept) == (80, 0)
    again = reports.write_run(synthetic.run(one, two), out, synthetic.Pictures())
    assert (again.redrawn, again.kept) == (0, 80)
    assert files(out) == before
    changed = dataclasses.replace(two, digest="other")
    assert reports.write_run(synthetic.run(one, changed), out, synthetic.Pictures()).redrawn == 40
    renamed = synthetic.run(one, two, name="another")
    assert reports.write_run(renamed, out, synthetic.Pictures()).redrawn == 80
    fresh = tmp_path / "fresh"
    reports.write_run(renamed, fresh, synthetic.Pictures())
    assert files(fresh) == files(out)


def build_until_killed(out: Path, unit: int) -> None:
    page = synthetic.layer(96)

    def cards(first: int, stop: int) -> list[pages.UnitCard]:
        if first <= unit < stop and first:
            os.kill(os.getpid(), signal.SIGKILL)
        return list(page.cards(first, stop))

    reports.write_run(synthetic.run(dataclasses.replace(page, cards=cards, digest="killed")), out, synthetic.Pictures())


@pytest.mark.parametrize("there", [False, True])
def test_a_killed_build_leaves_the_old_report_or_none(tmp_path: Path, there: bool) -> None:
    out = tmp_path / "r"
    if there:
        reports.write_run(synthetic.small(40), out, synthetic.Pictures())
    before = files(out) if there else None
    for unit in (33, 95):
        child = multiprocessing.get_context("spawn").Process(target=build_until_killed, args=(out, unit))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert (files(out) if out.exists() else None) == before
    reports.write_run(synthetic.small(40), out, synthetic.Pictures())
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_a_swap_that_was_cut_in_two_is_mended(tmp_path: Path) -> None:
    """Where the system has no exchange, a kill between the renames is repaired by the next build."""
    out = tmp_path / "r"
    (tmp_path / ".r.old").mkdir()
    (tmp_path / ".r.old/index.html").write_text("old")
    with pytest.raises(RuntimeError), folders.replaced(out):
        raise RuntimeError
    assert (out / "index.html").read_text() == "old"


@pytest.mark.parametrize("exchange", [True, False])
def test_readers_always_find_a_complete_report(tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(folders.ctypes, "CDLL", lambda *_, **options: object())  # a C library without it
    out = tmp_path / "r"
    for turn in range(3):
        with folders.replaced(out) as new:
            (new / "a").write_text(str(turn))
            if turn:
                assert (out / "a").read_text() == str(turn - 1)
        assert (out / "a").read_text() == str(turn)
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_only_what_killed_builds_of_this_very_report_left_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what a living process builds, nor reports whose names the pattern of this one would match."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    living = os.getppid()
    mine = [f".r[1].{ended.pid}.building", f".r[1].{ended.pid}.old"]
    others = [
        f".r[1].{living}.building",
        ".r[1].notes.building",
        f".r[1].{ended.pid}.kept",
        f".r1.{ended.pid}.building",
    ]
    for name in mine + others:
        (tmp_path / name).mkdir()
    with folders.replaced(tmp_path / "r[1]"):
        assert not any((tmp_path / name).exists() for name in mine)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "r[1]"])

    def forbidden(pid: int, number: int) -> None:
        raise PermissionError(pid)

    (tmp_path / mine[0]).mkdir()
    monkeypatch.setattr(os, "kill", forbidden)  # a process of somebody else: it lives
    with folders.replaced(tmp_path / "r[1]"):
        assert (tmp_path / mine[0]).exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, min_size=1, max_size=3))
def test_data_files_come_back_and_cannot_end_a_script(values: list[object]) -> None:
    """Exactly, in ASCII, and without the character that every tag begins with."""
    text = data.script("units", *values)
    assert text.isascii()
    assert "<" not in text
    assert (text.startswith("dissect.units(\n"), text.endswith("\n);\n")) == (True, True)
    assert json.dumps(data.parse(text)) == json.dumps(values)


def test_numbers_that_json_lacks_are_none_or_refused() -> None:
    assert data.finites([0.1, math.nan, -math.inf, 2]) == [0.1, None, None, 2.0]
    assert [data.finite(v) for v in (math.inf, 0.5)] == [None, 0.5]
    with pytest.raises(ValueError, match="not JSON compliant"):
        data.script("units", [math.nan])


def test_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def write(self: Path, content: bytes) -> int:
        nonlocal count
        count += 1
        if count == 20:
            raise OSError(28, "No space left on device", str(self))
        with self.open("wb") as file:
            return file.write(content)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(OSError, match="No space"):
        reports.write_run(synthetic.small(), tmp_path / "r", synthetic.Pictures())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [250_000, 400_000, 700_000])
def test_byte_budget_is_obeyed_and_said(tmp_path: Path, limit: int) -> None:
    page = synthetic.run(synthetic.layer(64, exemplars=10))
    written = reports.write_run(page, tmp_path / "r", synthetic.Pictures(), max_bytes=limit)
    size = sum(len(c) for c in files(tmp_path / "r").values())
    assert size == written.size <= limit
    assert written.notes
    assert "Thinned" in (tmp_path / "r/index.html").read_text() or "left out" in (tmp_path / "r/index.html").read_text()


def test_nothing_is_called_thinned_that_has_all_its_pictures(tmp_path: Path) -> None:
    """Units with two top images lose nothing where eight would fit, and the message counts from two."""
    page = synthetic.run(synthetic.layer(320, exemplars=2))
    assert reports.write_run(page, tmp_path / "r", synthetic.Pictures(), max_bytes=8_000_000).notes == ()
    (note,) = reports.write_run(page, tmp_path / "r", synthetic.Pictures(), max_bytes=3_300_000).notes
    assert note.endswith("instead of 2 pictures a unit at 112 x 112 pixels.")


def test_impossible_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(reports.ReportError, match="--max-report-bytes"):
        reports.write_run(synthetic.small(), tmp_path / "r", synthetic.Pictures(), max_bytes=10_000)
    assert not (tmp_path / "r").exists()


def test_ladder_only_goes_down() -> None:
    sizes = [r.px**2 * r.thumbs for r in budget.LADDER]
    assert sizes == sorted(sizes, reverse=True)
    assert budget.LADDER[-1].thumbs == 0


@pytest.mark.parametrize(
    "page",
    [
        synthetic.run(),
        synthetic.small(1),
        synthetic.run(synthetic.layer(8), cut=2.0),
        synthetic.run(synthetic.layer(5, exemplars=0)),
        synthetic.run(synthetic.layer(3, size=(1, 1)), excluded=()),
    ],
    ids=["no layers", "one unit", "no detectors", "no exemplars", "1 x 1 map"],
)
def test_odd_runs_have_reports(tmp_path: Path, page: pages.RunPage) -> None:
    for source in (None, synthetic.Pictures(absent=range(400)), synthetic.Pictures()):
        out = tmp_path / str(id(source))
        reports.write_run(page, out, source)
        assert page.name in (out / "index.html").read_text()


def test_without_pictures_the_cards_say_so(tmp_path: Path) -> None:
    reports.write_run(synthetic.small(8), tmp_path / "r", None)
    assert "the images are not at hand" in (tmp_path / "r/layers/0-layer4/plain-0.html").read_text()
    assert not list(tmp_path.rglob("*.jpg"))


def test_bibtex_is_closed_whatever_the_name() -> None:
    entry = bibtex(synthetic.run(name="a}b{\\input{x}%$#"))
    assert entry.count("{") == entry.count("}")
    assert "\\" not in entry


def test_build_speed(tmp_path: Path) -> None:
    """CPU seconds, not the clock: 500 units a second on one core are 2 ms of work a unit."""
    source = synthetic.Pictures(50)
    page = synthetic.layer(512, exemplars=5, positions=50)
    made = [page.cards(first, min(first + 32, 512)) for first in range(0, 512, 32)]
    page = dataclasses.replace(page, cards=lambda first, stop: made[first // 32][: stop - first])
    for position in range(50):
        source.thumb(position, 112)
    environment.version()
    begun = time.process_time()
    reports.write_run(synthetic.run(page), tmp_path / "r", source)
    each = (time.process_time() - begun) / 512
    assert each < 0.002, f"{each * 1e3:.1f} ms a unit"


def test_plain_pages_stay_below_a_megabyte_whatever_the_masks(tmp_path: Path) -> None:
    """Speckled maps have outlines of many corners: pages leave masks out and say so, the data files have them all."""
    page = synthetic.layer(200, size=(56, 56), exemplars=2)
    noise = np.random.default_rng(0).normal(1.2, 1.0, (56, 56)).astype(np.float32)

    def cards(first: int, stop: int) -> list[pages.UnitCard]:
        return [
            dataclasses.replace(c, exemplars=tuple(dataclasses.replace(x, map=noise) for x in c.exemplars))
            for c in page.cards(first, stop)
        ]

    reports.write_run(synthetic.run(dataclasses.replace(page, cards=cards)), tmp_path / "r", synthetic.Pictures())
    html = (tmp_path / "r/layers/0-layer4/plain-0.html").read_text()
    assert "masks of some pictures are left out" in html
    assert all(len(c) <= 1_000_000 for n, c in files(tmp_path / "r").items() if n.endswith(".html"))
    _, found = data.parse((tmp_path / "r/layers/0-layer4/data/00000.js").read_text())
    assert all(len(e[5]) > 1000 for e in found[0]["e"])


def test_pages_stay_small_with_many_layers_and_labels(tmp_path: Path) -> None:
    """Every page below 3,000 nodes; what the run's page leaves out is a link away."""
    known = synthetic.concepts(1197)
    kinds = np.arange(1200) % 1197
    page = synthetic.layer(1200, known=known, exemplars=0)
    u = dataclasses.replace(page.units, concept=kinds + 1, iou=np.full(1200, 0.1) + kinds / 1e5)
    layers = [dataclasses.replace(page, units=u, position=k, name=f"l{k}", digest=f"{k}") for k in range(4)]
    reports.write_run(synthetic.run(*layers, known=known), tmp_path / "few")
    thin = [dataclasses.replace(synthetic.layer(4, k, f"l{k}", exemplars=0)) for k in range(60)]
    reports.write_run(synthetic.run(*thin), tmp_path / "many")
    for path in tmp_path.rglob("*.html"):
        links = Links()
        links.feed(path.read_text(encoding="utf-8"))
        assert links.nodes < 3000, path
    listed = [set(re.findall(r"concepts/(\d+)\.html", (tmp_path / "few" / name).read_text()))
              for name in ("index.html", "concepts/index-0.html", "concepts/index-1.html")]  # fmt: skip
    assert len(listed[0]) >= 200
    assert {int(n) for n in listed[1] | listed[2]} == set(range(1, 1198))
    assert len(listed[1]) == 1000
    assert "1197 concepts have at least one detector" in (tmp_path / "few/index.html").read_text()
