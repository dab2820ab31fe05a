"""What is written is what was found, and no label can do harm in any of the forms."""

import csv
import html
import importlib.util
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import dissect.api
from dissect.errors import SpecError
from dissect.query import formats
from dissect.query.result import Result
from dissect.store.unit_rows import COLUMNS
from tests.dissect.query import console
from tests.dissect.store import makers

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\x1b[2J\x1b]0;owned\x07", "a\x9b31mb", "=1+1", "+1",
    "-1", "@SUM(A1)", "\tcmd", "\r\nnew,line", 'quo"te', "semi;colon", "pipe|pipe", "`code`", "'; DROP TABLE runs; --",
    "\u202egnp.exe", "مرحبا", "日本語", "e\u0301", "x" * 200, "{{7*7}}", "\u2028", "null", "NaN",
    " spaces ", "&amp;", "\ufeff",
]  # fmt: skip


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    with makers.open_store(folder) as store:
        makers.save(store, units=60, concepts=len(HOSTILE), names=HOSTILE, layers=("<b>layer</b>\x1b[0m",))
    return folder


def written(kind: str, columns, rows, **options) -> str:
    stream = io.StringIO(newline="")
    formats.write(stream, kind, columns, rows, **options)
    return stream.getvalue()


def test_every_hostile_name_can_be_asked_for(hostile: Path) -> None:
    work = dissect.api.open(hostile)
    for name in HOSTILE:
        assert {row["concept"] for row in work.units(concept=name, rank="all")} <= {name}
    assert {row["concept"] for row in work.concepts()} == set(HOSTILE)


@pytest.mark.parametrize("kind", formats.FORMATS)
def test_round_trips(hostile: Path, kind: str) -> None:
    """Rows through every format on stdout and in a file."""
    words = ("query", "units", "--rank", "all", "--workspace", str(hostile), "--format", kind)
    expected = dissect.api.open(hostile).units(rank="all").rows
    out = console.run(*words)[0]
    file = hostile / f"out.{kind}"
    console.run(*words, "-o", str(file))
    assert file.read_bytes() == out
    if kind == "json":
        found = json.loads(out)
    elif kind == "ndjson":
        found = [json.loads(line) for line in out.decode().splitlines()]
    elif kind in ("csv", "tsv"):
        reader = csv.DictReader(io.StringIO(out.decode(), newline=""), delimiter="," if kind == "csv" else "\t")
        found = [_typed(row) for row in reader]
    elif kind in ("parquet", "arrow"):
        arrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet")
        source = arrow.BufferReader(out)
        table = arrow.parquet.read_table(source) if kind == "parquet" else arrow.ipc.open_stream(source).read_all()
        found = table.to_pylist()
    else:
        text = out.decode()
        assert len(text.splitlines()) == len(expected) + 2
        assert all(character.isprintable() for line in text.split("\n") for character in line)
        return
    assert found == expected


TRUST = ("iou_low", "iou_high", "stability", "p_value", "q_value", "iou_null", "phi", "iqr", "ap")


def _typed(row: dict[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, text in row.items():
        if not text and name in ("run_name", "threshold", *TRUST):
            found[name] = None
        else:
            found[name] = text if name in formats.TEXTS else float(text) if name in formats.REALS else int(text)
    return found


def test_nothing_drives_a_terminal(hostile: Path) -> None:
    for kind in ("table", "markdown"):
        text = console.run("query", "concepts", "--workspace", str(hostile), "--format", kind)[0].decode()
        assert all(character == "\n" or character.isprintable() for character in text)
        assert "\\x1b[2J" in text.replace("\\\\", "\\").replace("\\[", "[")
    rows = [(name,) for name in HOSTILE]
    shown = written("csv", ("concept",), rows, terminal=True)
    assert all(character == "\n" or character.isprintable() for character in shown)
    assert "<script>" not in written("markdown", ("concept",), rows)


def test_excel_safe_changes_only_what_a_spreadsheet_would_run() -> None:
    rows = [(name,) for name in HOSTILE]
    exact = [row[0] for row in csv.reader(io.StringIO(written("csv", ("concept",), rows), newline=""))][1:]
    assert exact == HOSTILE
    safe = [row[0] for row in csv.reader(io.StringIO(written("csv", ("concept",), rows, excel_safe=True), newline=""))][
        1:
    ]
    for name, cell in zip(HOSTILE, safe):
        assert cell == ("'" + name if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name)


@given(st.lists(st.tuples(st.text(), st.floats(allow_nan=True), st.integers(-(2**63), 2**63 - 1)), max_size=8))
@example([("NaN", math.nan, 0), ("", math.inf, 1), ("-", -math.inf, -1)])
def test_json_is_ascii_finite_and_exact(rows: list[tuple[str, float, int]]) -> None:
    text = written("json", ("concept", "iou", "unit"), rows)
    assert text.isascii()
    assert "NaN" not in text.replace('"', " ") or any("NaN" in row[0] for row in rows)
    found = json.loads(text)
    assert len(found) == len(rows)
    for row, (name, number, whole) in zip(found, rows):
        assert row == {"concept": name, "iou": number if math.isfinite(number) else None, "unit": whole}
    assert [json.loads(line) for line in written("ndjson", ("concept", "iou", "unit"), rows).splitlines()] == found


@given(st.text())
def test_printable_is_printable_and_keeps_the_rest(text: str) -> None:
    shown = formats.printable(text)
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\u200e\u200f")
    if text.isprintable():
        assert shown == text


@given(st.text())
def test_a_markdown_cell_holds_its_text_and_nothing_else(text: str) -> None:
    """Without its escapes it is the text, and no mark in it ends the cell or begins anything."""
    head, rule, line = written("markdown", ("concept",), [(text,)]).splitlines()
    assert (head, rule) == ("| concept |", "| --- |")
    assert line.startswith("| ")
    assert line.endswith(" |")
    cell = line[2:-2]
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|~#!]", cell)
    assert not set(cell) & set("<>")
    assert re.sub(r"\\([\\`*_\[\]|~#!])", r"\1", html.unescape(cell)) == formats.printable(text)


@given(st.text())
def test_a_notebook_cell_holds_its_text_and_nothing_else(text: str) -> None:
    found: list[str] = []

    class Cells(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert not attrs
            found.append(f"<{tag}>")

        def handle_data(self, data: str) -> None:
            found.append(data)

    Cells().feed(Result((text,), [(text,)])._repr_html_())
    shown = [formats.printable(text)] * bool(text)
    assert found == ["<table>", "<thead>", "<tr>", "<th>", *shown, "<tbody>", "<tr>", "<td>", *shown]


def test_bytes_and_long_identifiers() -> None:
    assert written("json", ("a",), [(b"\x00\xff",)]) == '[\n{"a": "00ff"}\n]\n'
    assert written("table", ("run", "name"), [("a" * 16, "a" * 16)]).splitlines()[2] == "a" * 12 + "  " + "a" * 16
    assert written("table", ("a",), [(b"\x00\xff",)]).splitlines()[2] == "00ff"


def test_a_format_that_is_none_is_named() -> None:
    with pytest.raises(SpecError) as refused:
        written("xml", ("a",), [(1,)])
    assert str(refused.value) == (
        "format 'xml' is unknown: expected one of table, csv, tsv, json, ndjson, markdown, parquet, arrow"
    )


def test_rows_in_hand_as_text() -> None:
    result = Result(("unit", "concept"), [(i, f"c{i}") for i in range(60)])
    assert result.to_text("csv") == written("csv", result.columns, result.tuples)
    assert repr(result) == written("table", result.columns, result.tuples[:10]) + "… 60 rows\n"
    short = Result(result.columns, result.tuples[:10])
    assert repr(short) == short.to_text()
    assert "<caption>60 rows, the first 50 shown</caption>" in result._repr_html_()
    assert result._repr_html_().count("<tr>") == 51
    assert "<caption>" not in short._repr_html_()
    with pytest.raises(SpecError, match=r"^no column 'iou': expected one of unit, concept$"):
        result.column("iou")
    for kind in formats.BINARY_FORMATS:
        with pytest.raises(
            SpecError, match=rf"^{kind} is no text: use to_arrow\(\), or `dissect query … --format {kind}`$"
        ):
            result.to_text(kind)


def test_no_rows() -> None:
    assert written("json", ("a",), []) == "[]\n"
    assert written("csv", ("a", "b"), []) == "a,b\n"
    assert written("ndjson", ("a",), []) == ""
    assert written("table", ("a",), []) == "(no rows)\n"
    arrow = pytest.importorskip("pyarrow")
    stream = io.BytesIO()
    formats.write_binary(stream, "parquet", COLUMNS, [])
    assert arrow.parquet.read_table(arrow.BufferReader(stream.getvalue())).column_names == list(COLUMNS)


def test_frames_equal_the_rows(hostile: Path) -> None:
    result = dissect.api.open(hostile).units()
    assert len(result) == 60
    assert result.column("unit") == [row["unit"] for row in result]
    frames = []
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frames.append(
        [{k: None if pandas.isna(v) else v for k, v in row.items()} for row in result.to_pandas().to_dict("records")]
    )
    frames.append(result.to_arrow().to_pylist())
    if importlib.util.find_spec("polars"):
        frames.append(result.to_polars().to_dicts())
    for frame in frames:
        assert frame == result.rows


def test_missing_extras_are_named(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("pyarrow", "pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    result = dissect.api.open(hostile).units()
    with pytest.raises(SpecError, match=r"dissect\[parquet\]"):
        result.to_arrow()
    with pytest.raises(SpecError, match="pip install pandas"):
        result.to_pandas()
    with pytest.raises(SpecError, match="pip install polars"):
        result.to_polars()
    with pytest.raises(SpecError, match=r"dissect\[parquet\]"):
        console.run("query", "units", "--workspace", str(hostile), "--format", "parquet")


def test_notebook_table_is_escaped(hostile: Path) -> None:
    shown = dissect.api.open(hostile).concepts()._repr_html_()
    assert "<script" not in shown
    assert "<img" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "\x1b" not in shown
    assert Result(("a",), [(None,)])._repr_html_().count("<td></td>") == 1


def test_files_are_put_in_place_whole(hostile: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("before")
    with pytest.raises(SpecError):
        console.run("query", "units", "--workspace", str(hostile), "--format", "csv", "--rank", "x", "-o", str(target))
    assert target.read_text() == "before"
    with pytest.raises(SpecError, match="cannot write"):
        console.run("query", "units", "--workspace", str(hostile), "-o", str(tmp_path / "no/such/folder.csv"))
    assert list(tmp_path.iterdir()) == [target]


def test_export_tables(hostile: Path) -> None:
    run = "a" * 64
    words = ("export", run, "--workspace", str(hostile), "--format", "ndjson")
    work = dissect.api.open(hostile)
    for table, expected in (
        ("units", work.units().rows), ("pairs", work.units(rank="all").rows), ("concepts", work.concepts().rows),
    ):  # fmt: skip
        out = console.run(*words, "--table", table)[0].decode()
        assert [json.loads(line) for line in out.splitlines()] == expected
    layers = json.loads(console.run(*words, "--table", "layers")[0])
    assert (layers["units"], layers["cut"]) == (60, 0.04)


def test_parquet_says_where_it_is_from(hostile: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "pairs.parquet"
    console.run("export", "a" * 64, "--workspace", str(hostile), "--format", "parquet", "-o", str(file))
    found = parquet.read_schema(file).metadata
    assert (found[b"dissect.id"], found[b"dissect.convention"]) == (b"a" * 64, b"exact")


def test_exported_thresholds_are_exact(hostile: Path) -> None:
    import numpy as np

    out = console.run("export", "a" * 64, "--workspace", str(hostile), "--format", "thresholds")[0].decode()
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    with dissect.api.open(hostile).store() as store:
        layer = store.layers("a" * 64)[0]
        expected = store.units(layer).threshold
    found = np.array([np.float32(row["threshold"] or "nan") for row in rows])
    np.testing.assert_array_equal(found, expected)
    assert [int(row["unit"]) for row in rows] == list(range(60))
