"""Somebody's own SQL can read, briefly, and nothing else."""

import hashlib
import time
from pathlib import Path

import pytest

from dissect.errors import DissectError, RetryLater, SpecError
from dissect.store import Store
from dissect.store.sql import read_only_sql
from dissect.workspace import Workspace
from tests.dissect.query import console
from tests.dissect.store import makers

WRITES = [
    "DELETE FROM runs", "UPDATE runs SET name = 'x'", "INSERT INTO meta VALUES ('a', 'b')", "DROP TABLE runs",
    "DROP VIEW v_units", "CREATE TABLE t (a)", "CREATE TEMP TABLE t (a)", "CREATE VIEW v AS SELECT 1",
    "ALTER TABLE runs ADD x",
    "ATTACH '/tmp/other.sqlite' AS o", "ATTACH ':memory:' AS o", "DETACH main", "PRAGMA query_only=OFF",
    "PRAGMA journal_mode=WAL", "PRAGMA writable_schema=1", "VACUUM", "VACUUM INTO '/tmp/copy.sqlite'", "REINDEX",
    "ANALYZE",
    "BEGIN IMMEDIATE", "COMMIT", "SAVEPOINT s", "EXPLAIN SELECT 1", "SELECT 1; DELETE FROM runs",
    "WITH x AS (SELECT 1) DELETE FROM runs", "WITH x AS (SELECT 1) INSERT INTO meta SELECT 'a', 'b'",
    "REPLACE INTO meta VALUES ('schema_version', '0')", "SELECT load_extension('x')", "SELECT writefile('/tmp/x', 'y')",
    "SELECT readfile('/etc/passwd')", "SELECT * FROM pragma_database_list", "SELECT randomblob(1000000000)",
    "/* x */ DELETE FROM runs", "-- x\nDELETE FROM runs", "(DELETE FROM runs)", "", ";", "\0",
    "SELECT 1\0; DROP TABLE runs",
    "SELECT fts3_tokenizer('x')", "SELECT * FROM runs INTO OUTFILE '/tmp/x'",
]  # fmt: skip
LONG = (
    "WITH RECURSIVE t(s, n) AS (SELECT 'aaaaaaaa', 1 UNION ALL "
    "SELECT CASE WHEN length(s) < 400000 THEN s || s ELSE s END, n + 1 FROM t) "
)
SLOW = [
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
    "SELECT count(*) FROM units a, units b, units c, units d, units e, units f",
    "SELECT a.iou FROM scores a, scores b, scores c, scores d ORDER BY random()",
    LONG + "SELECT sum(instr(s, substr(s, 1, 100000) || 'b')) FROM t",
    LONG + "SELECT sum(length(trim(s, substr(s, 1, 100000) || 'b'))) FROM t",
    LONG + "SELECT sum(length(replace(s, 'a', 'b'))) FROM t",
    LONG + "SELECT count(*) FROM t WHERE s LIKE '%a%a%a%a%a%a%a%a%a%b'",
    LONG + "SELECT count(*) FROM t WHERE s GLOB '*a*a*a*a*a*a*a*a*b'",
    LONG + "SELECT group_concat(s) FROM t",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sql")
    with makers.open_store(place) as store:
        makers.save(store, makers.run_record(name="first"), units=200, concepts=30)
    return place


@pytest.fixture
def store(folder: Path):
    with Store.open(folder, readonly=True) as opened:
        yield opened


@pytest.mark.parametrize("statement", WRITES)
def test_everything_but_reading_is_refused(folder: Path, store: Store, statement: str) -> None:
    before = hashlib.sha256((folder / "dissect.sqlite").read_bytes()).hexdigest()
    with pytest.raises(SpecError):
        read_only_sql(store, statement)
    assert hashlib.sha256((folder / "dissect.sqlite").read_bytes()).hexdigest() == before
    assert sorted(path.name for path in folder.iterdir()) == ["cache", "dissect.sqlite"]


@pytest.mark.parametrize("statement", SLOW)
def test_a_runaway_query_is_stopped_in_time(store: Store, statement: str) -> None:
    best = 9.0
    for _ in range(3):  # a busy machine may hold one attempt up
        start = time.monotonic()
        with pytest.raises(RetryLater, match=r"stopped after 0\.3 s"):
            read_only_sql(store, statement, seconds=0.3)
        best = min(best, time.monotonic() - start)
        if best < 0.5:
            break
    assert best < 0.5


def test_rows_are_limited_and_it_is_said(folder: Path, store: Store) -> None:
    table = read_only_sql(store, "SELECT unit FROM units ORDER BY unit", rows=5)
    assert (table.rows, table.more) == ([(unit,) for unit in range(5)], True)
    assert not read_only_sql(store, "SELECT unit FROM units").more
    _, err = console.run("query", "sql", "SELECT * FROM scores", "--max-rows", "3", "--workspace", str(folder))
    assert "only the first 3 rows" in err
    for limits in ({"seconds": 0}, {"rows": 0}):
        with pytest.raises(SpecError, match="expected more than 0"):
            read_only_sql(store, "SELECT 1", **limits)


def test_what_one_may_ask(store: Store) -> None:
    table = read_only_sql(
        store,
        "-- a comment\nWITH best AS (SELECT concept, max(iou) AS top FROM v_best_label GROUP BY concept) "
        "SELECT replace(concept, 'concept', 'c') AS name, top, instr(concept, ' '), trim('  x '), ltrim('xxa', 'x'), "
        "rtrim('axx', 'x') FROM best ORDER BY top DESC",
    )
    assert table.columns[:2] == ("name", "top")
    assert table.rows[0][0].startswith("c ")
    assert table.rows[0][2:] == (8, "x", "a", "a")
    assert read_only_sql(store, "SELECT l.name, r.name FROM layers l, runs r").columns == ("name", "name_2")
    assert read_only_sql(store, "SELECT sql FROM sqlite_master").rows
    assert read_only_sql(store, "VALUES (1, 'a')").rows == [(1, "a")]


def test_replaced_functions_equal_the_originals(store: Store) -> None:
    import sqlite3

    plain = sqlite3.connect(":memory:")
    calls = [
        "instr('banana', 'an')", "instr('banana', '')", "instr('', 'a')", "instr(NULL, 'a')",
        "replace('aaa', 'a', 'bb')",
        "replace('aaa', '', 'b')", "replace('a', NULL, 'b')", "replace(121, 1, 3)", "trim('  a ')",
        "trim('xyaxy', 'yx')",
        "ltrim('xya', 'xy')", "rtrim('axy', 'yx')", "trim('xx', 'x')", "trim(NULL)", "rtrim('a', '')", "ltrim('  a ')",
    ]  # fmt: skip
    for call in calls:
        assert read_only_sql(store, f"SELECT {call}").rows == plain.execute(f"SELECT {call}").fetchall(), call


def test_wrong_sql_is_explained(store: Store) -> None:
    for statement, message in (
        ("SELECT colour FROM units", "no such column: colour"),
        ("SELECT * FROM nowhere", "no such table: nowhere"),
        ("SELECT (", "SQL: "),
        ("SELECT replace(printf('%.900000c', 'x'), 'x', 'yyyy')", "SQL: "),
    ):
        with pytest.raises(SpecError, match=message):
            read_only_sql(store, statement)


def test_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    with Store.open(Workspace.at(tmp_path, postgres_url)) as store:
        makers.save(store, units=20)
    with Store.open(Workspace.at(tmp_path, postgres_url), readonly=True) as store:
        table = read_only_sql(store, "SELECT unit, iou FROM v_units ORDER BY unit", rows=7)
        assert ([row[0] for row in table.rows], table.more) == (list(range(7)), True)
        for statement in (
            "WITH x AS (DELETE FROM runs RETURNING 1) SELECT * FROM x",
            "SELECT 1; DROP TABLE runs",
            "DROP TABLE runs",
        ):
            with pytest.raises(DissectError):
                read_only_sql(store, statement)
        start = time.monotonic()
        with pytest.raises(RetryLater, match="stopped after"):
            read_only_sql(store, "SELECT pg_sleep(5)", seconds=0.3)
        assert time.monotonic() - start < 2
        assert len(store.runs()) == 1
        words = ["--workspace", str(tmp_path), "--db", postgres_url]
    assert len(console.rows("query", "units", *words)) == 20
    assert len(console.rows("query", "units", "--rank", "all", "--concept", "concept 3", *words)) > 3
    assert console.rows("query", "concepts", *words)
    assert console.rows("query", "units", "--facet", "category", *words)
