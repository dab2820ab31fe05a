"""The API gives the rows of the Python API, page by page, in every format, within its limits."""

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from dissect.prometheus import Sample, exposition
from dissect.serve.limits import Limits
from tests.dissect.serve.conftest import make_client
from tests.dissect.store import makers

QUESTIONS = [
    {}, {"concept": "dog"}, {"concept": ["dog", "cat"], "rank": "all"}, {"category": "object", "min_iou": "0.05"},
    {"run": "first", "layer": "fc", "detectors": "1"}, {"unit": ["3", "4"], "rank": "2"}, {"state": "dead"},
    {"search": "o", "max_iou": "0.1"}, {"concept": "dog", "unit": "7", "complete": "1"},
]  # fmt: skip


@pytest.mark.parametrize("asked", QUESTIONS, ids=str)
def test_units_are_those_of_python(client: Any, work: Any, asked: dict) -> None:
    """All pages together are the whole answer, in its order, with its floats to the last bit."""
    rows, after = [], {}
    while True:
        found = client.get("/api/units", params=asked | {"limit": "37"} | after).json()
        rows += found["rows"]
        assert len(found["rows"]) <= 37
        assert found["truncated"] == (found["next"] is not None)
        if found["next"] is None:
            break
        after = {"after": found["next"]}
    wanted = {name: "all" if value == "all" else value for name, value in asked.items()}
    assert rows == work.units(**wanted).rows
    assert rows or asked == {"state": "dead"} or "search" in asked


def test_the_other_tables_too(client: Any, work: Any) -> None:
    ask = client.get
    assert ask("/api/runs").json()["rows"] == work.runs().rows
    assert ask("/api/concepts?run=first").json()["rows"] == work.concepts(run="first").rows
    assert ask("/api/images?run=second&limit=1000").json()["rows"] == work.images(run="second").rows
    assert ask("/api/images?run=first&limit=7").json()["rows"] == work.images(run="first", top=7).rows
    assert ask("/api/images?excluded=1").json()["rows"] == work.images(excluded=True).rows
    assert ask("/api/diff?one=first&other=second").json()["rows"] == work.diff("first", "second").rows
    assert ask("/api/sql?sql=SELECT+1+AS+a").json()["rows"] == [{"a": 1}]
    layers = ask("/api/layers?run=first").json()["rows"]
    assert [(row["layer"], row["units"]) for row in layers] == [("conv", 240), ("fc", 240)]
    facets = ask("/api/facets?run=second").json()["rows"]
    assert {"facet": "run", "value": "second", "count": 40} in facets


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_whole_table_streams(client: Any, work: Any, kind: str) -> None:
    answer = client.get(f"/api/units.{kind}?run=first&rank=all&limit=all")
    found = list(csv.DictReader(io.StringIO(answer.text), delimiter="," if kind == "csv" else "\t"))
    rows = work.units(run="first", rank="all").rows
    assert len(rows) > 4000
    assert [(row["unit"], row["concept"], float(row["iou"])) for row in found] == [
        (str(row["unit"]), row["concept"], row["iou"]) for row in rows
    ]
    lines = client.get("/api/units.ndjson?limit=all&run=first").text.splitlines()
    assert [json.loads(line) for line in lines] == work.units(run="first").rows


def test_a_stream_that_is_too_long_says_so(served: Path) -> None:
    client = make_client(served, limits=Limits(export_bytes=5000))
    text = client.get("/api/units.csv?limit=all").text
    assert text.splitlines()[-1] == "error: truncated after 5000 bytes, narrow the filter"
    assert 4000 < len(text) < 6000


def test_formats(client: Any, work: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = work.units(run="second").rows
    table = parquet.read_table(io.BytesIO(client.get("/api/units.parquet?run=second").content))
    assert table.to_pylist() == rows
    assert client.get("/api/units.markdown?run=second&limit=3").text.count("\n") == 5
    assert client.get("/api/units.table?run=second&limit=3").text.splitlines()[0].split()[0] == "run"
    mixed = "/api/sql.parquet?sql=SELECT 1.5 AS iou UNION ALL SELECT 'a' UNION ALL SELECT x'00ff'"
    column = parquet.read_table(io.BytesIO(client.get(mixed).content)).to_pydict()["iou"]
    assert column == ["1.5", "a", "00ff"]


def test_next_page_stands_in_the_header(client: Any) -> None:
    answer = client.get("/api/units.csv?run=first&limit=5&category=object")
    link = answer.headers["link"]
    assert link.endswith('; rel="next"')
    again = client.get(link[1 : link.index(">")])
    assert again.status_code == 200
    assert not set(answer.text.splitlines()[1:]) & set(again.text.splitlines()[1:])


WRONG = [
    ("/api/units?min_iou=x", "min_iou 'x' is no number"), ("/api/units?concpt=dog", "did you mean concept"),
    ("/api/units?concept=dogg", "did you mean dog"), ("/api/units?after=xyz", "page token is damaged"),
    ("/api/units?limit=0", "no number of rows"), ("/api/units.pdf", "format 'pdf' is unknown"),
    ("/api/units.json?limit=all", "limit=all is possible as csv"), ("/api/diff?one=first", "other=RUN"),
    ("/api/sql?sql=DELETE+FROM+runs", "only SELECT"), ("/api/sql", "sql is missing"),
    ("/api/units?complete=1", "name the concepts or the units"), ("/api/units?run=first&run=first&limit=2&limit=3",
     "limit was given 2 times"), ("/api/units?" + "unit=1&" * 60, "more than 50 values"),
    ("/api/units?run=unfinished", "only finished"), ("/api/sql?sql=SELECT+1&seconds=nan", "no time"),
]  # fmt: skip


@pytest.mark.parametrize(("address", "message"), WRONG)
def test_wrong_questions_are_told_why(client: Any, address: str, message: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_limits_hold(served: Path) -> None:
    client = make_client(served, limits=Limits(seconds=1.0, rows=10, page=5, pairs=100))
    assert len(client.get("/api/units").json()["rows"]) == 5
    assert len(client.get("/api/units?limit=500").json()["rows"]) == 10
    found = client.get("/api/sql?sql=SELECT * FROM v_units").json()
    assert (len(found["rows"]), found["truncated"]) == (10, True)
    assert "100 are possible here" in client.get("/api/units?complete=1&concept=dog").json()["error"]
    begun = time.monotonic()
    slow = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t"
    answer = client.get("/api/sql", params={"sql": slow, "seconds": "60"})
    assert (answer.status_code, "stopped" in answer.json()["error"]) == (400, True)
    assert time.monotonic() - begun < 1.0 + 0.2 + 0.3  # the limit, what the promise allows, and a busy machine


def test_every_reading_ends_in_time(served: Path) -> None:
    """A limit that has passed stops the plain tables as well."""
    client = make_client(served, limits=Limits(seconds=1e-9))
    for path in ("/api/units", "/api/concepts", "/api/images", "/api/diff?one=first&other=second"):
        answer = client.get(path)
        assert answer.status_code == 400, path
        assert "took too long" in answer.json()["error"]


def test_an_answer_holds_until_the_database_changes(tmp_path: Path) -> None:
    with makers.open_store(tmp_path) as store:
        makers.save(store, makers.run_record("a" * 64, "one"), units=6, concepts=6)
        client = make_client(tmp_path)
        first = client.get("/api/units?limit=3")
        tag = first.headers["etag"]
        again = client.get("/api/units?limit=3", headers={"If-None-Match": f'"x", W/{tag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert client.get("/api/units?limit=4").headers["etag"] != tag
        store.begin_run(makers.run_record("b" * 64, "two"))
        changed = client.get("/api/units?limit=3", headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != tag


def test_openapi_names_every_filter(client: Any) -> None:
    paths = client.get("/api/openapi.json").json()["paths"]
    named = {item["name"] for item in paths["/api/units"]["get"]["parameters"]}
    assert {"run", "layer", "unit", "concept", "category", "min_iou", "max_iou", "rank", "limit", "after"} <= named
    assert {operation for path in paths.values() for operation in path} == {"get"}
    assert set(client.get("/api").json()["tables"]) <= set(paths)


def test_metrics(client: Any) -> None:
    client.get("/api/units?limit=0")
    text = client.get("/metrics").text
    assert 'dissect_runs{state="finished"} 2\n' in text
    assert 'dissect_runs{state="running"} 1\n' in text
    assert "dissect_units 520\n" in text
    assert 'dissect_http_requests_total{status="4xx"} 1\n' in text
    assert text.count("# TYPE dissect_runs gauge") == 1
    made = exposition([Sample("a", "gauge", "b\nc", 0.1, {"k": 'x"\\\n'})])
    assert made == '# HELP a b\\nc\n# TYPE a gauge\na{k="x\\"\\\\\\n"} 0.10000000000000001\n'
