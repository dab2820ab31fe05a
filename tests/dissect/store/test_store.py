"""Runs go in whole and come out as they were."""

import hashlib
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dissect.errors import DissectError, RetryLater, SpecError
from dissect.store import Store
from dissect.store.engine import connect_sqlite, wal_is_safe
from dissect.workspace import Workspace
from tests.dissect.store import makers

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path: Path):
    with makers.open_store(tmp_path) as opened:
        yield opened


def equal(left: object, right: object) -> None:
    for name, column in vars(left).items():
        other = vars(right)[name]
        assert column.dtype.kind == other.dtype.kind, name
        np.testing.assert_array_equal(column, other, err_msg=name)


def test_what_goes_in_comes_out(store: Store) -> None:
    known = makers.concept_records(15)
    counts = makers.counts_of(9, known)
    layer = makers.layer_record("conv", counts)
    store.begin_run(makers.run_record(name="first"))
    run = store.finish_run(
        "a" * 64, [layer], known, makers.category_records(), images=98, timings={"wall_s": 1.25}, peak_rss_bytes=7
    )
    assert (run.state, run.images, run.timings, run.peak_rss_bytes) == ("finished", 98, {"wall_s": 1.25}, 7)
    stored = store.layer(run.id, "conv")
    assert (stored.units, stored.map_h, stored.map_w, stored.top_k, stored.cut) == (9, 7, 5, 17, 0.04)
    equal(store.units(stored), layer.units)
    equal(store.scores(stored), layer.scores)
    equal(store.exemplars(stored), layer.exemplars)
    np.testing.assert_array_equal(store.unit_areas(stored), layer.unit_areas)
    assert store.concepts(run.id) == known
    assert store.categories(run.id) == makers.category_records()


def test_floats_keep_every_bit(store: Store) -> None:
    makers.save(store)
    layer = store.layers("a" * 64)[0]
    scores = store.scores(layer)
    again = scores.intersection / (scores.unit_area + scores.concept_area - scores.intersection)
    np.testing.assert_array_equal(again, scores.iou)


def test_counts_come_back(store: Store) -> None:
    makers.save(store, units=8, concepts=12)
    layer = store.layers("a" * 64)[0]
    counts = store.counts(layer)
    assert counts.shape == (8, 13)
    scores = store.scores(layer)
    np.testing.assert_array_equal(counts[scores.unit, scores.concept], scores.intersection)
    assert isinstance(counts, np.memmap)


def test_missing_counts_are_said(store: Store) -> None:
    makers.save(store)
    layer = store.layers("a" * 64)[0]
    (store.workspace.root / str(layer.counts_file)).unlink()
    with pytest.raises(SpecError, match="is gone"):
        store.counts(layer)
    with pytest.raises(SpecError, match="outside the workspace"):
        store.workspace.open_counts("../../etc/passwd")


def score_bytes(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT * FROM scores").fetchall()  # in storage order
        units = connection.execute("SELECT * FROM units").fetchall()
    return hashlib.sha256(repr((rows, units)).encode()).hexdigest()


def test_same_run_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with makers.open_store(tmp_path / name) as store:
            makers.save(store, layers=("conv", "fc"))
    assert score_bytes(tmp_path / "one/dissect.sqlite") == score_bytes(tmp_path / "two/dissect.sqlite")


def test_names(store: Store) -> None:
    makers.save(store, makers.run_record("a" * 64, "mine"))
    with pytest.raises(SpecError, match="'mine' belongs to run aaaa"):
        store.begin_run(makers.run_record("b" * 64, "mine"))
    with pytest.raises(SpecError, match="not usable"):
        store.begin_run(makers.run_record("b" * 64, "../up"))
    again = store.begin_run(makers.run_record("a" * 64, "mine"))
    assert again.state == "finished"
    assert store.begin_run(makers.run_record("a" * 64, "other")).name == "other"
    assert store.get_run("other").id == store.get_run("aaaa").id == store.get_run("a" * 64).id
    with pytest.raises(SpecError, match="did you mean other"):
        store.get_run("othr")


def test_running_and_failed_runs(store: Store) -> None:
    store.begin_run(makers.run_record())
    assert [run.state for run in store.runs()] == ["running"]
    store.fail_run("a" * 64, "out of luck")
    assert (store.get_run("a" * 64).state, store.get_run("a" * 64).error) == ("failed", "out of luck")
    assert store.begin_run(makers.run_record()).state == "running"
    makers.save(store)
    store.fail_run("a" * 64, "too late")
    assert store.get_run("a" * 64).state == "finished"


def test_finishing_twice_replaces(store: Store) -> None:
    makers.save(store)
    before = store.scores(store.layers("a" * 64)[0])
    makers.save(store)
    assert len(store.layers("a" * 64)) == 1
    equal(store.scores(store.layers("a" * 64)[0]), before)


def test_delete_leaves_nothing(store: Store) -> None:
    makers.save(store, makers.run_record("b" * 64))
    makers.save(store)
    store.delete_run("a" * 64)
    assert [run.id for run in store.runs()] == ["b" * 64]
    with sqlite3.connect(store.workspace.root / "dissect.sqlite") as connection:
        for table in ("layers", "concepts", "categories", "excluded"):
            assert connection.execute(f"SELECT DISTINCT run_id FROM {table}").fetchall() == [("b" * 64,)], table
        for table in ("units", "unit_areas", "scores", "exemplars"):
            assert len(connection.execute(f"SELECT DISTINCT layer_id FROM {table}").fetchall()) == 1, table


def test_contradicting_records_are_refused_and_nothing_is_written(store: Store) -> None:
    known = makers.concept_records(15)
    layer = makers.layer_record("conv", makers.counts_of(9, known))
    store.begin_run(makers.run_record())
    label = layer.units.label.copy()
    label[1] = (label[1] % 15) + 1
    for bad, message in (
        (replace(layer, units=replace(layer.units, label=label)), "unit 1 has label"),
        (replace(layer, units=replace(layer.units, low=np.zeros(3))), "column low has shape"),
        (replace(layer, unit_areas=np.zeros((9, 2), np.int64)), "unit_areas has shape"),
        (replace(layer, scores=replace(layer.scores, unit=layer.scores.unit + 100)), "names a unit outside"),
        (replace(layer, scores=replace(layer.scores, concept=layer.scores.concept + 90)), "run lacks"),
    ):
        with pytest.raises(DissectError, match=message):
            store.finish_run("a" * 64, [bad], known, makers.category_records())
    assert store.get_run("a" * 64).state == "running"
    assert store.layers("a" * 64) == []
    with pytest.raises(SpecError, match="never begun"):
        store.finish_run("nobody", [layer], known, makers.category_records())


def test_small_and_empty_layers(store: Store) -> None:
    makers.save(store, units=1, concepts=1)
    assert store.units(store.layers("a" * 64)[0]).label.shape == (1,)
    makers.save(store, makers.run_record("b" * 64), units=3, concepts=0)
    layer = store.layers("b" * 64)[0]
    assert store.units(layer).label.tolist() == [0, 0, 0]
    assert len(store.scores(layer).unit) == 0


def test_opening(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no database .*dissect run"):
        Store.open(tmp_path / "absent", readonly=True)
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(SpecError, match="is a file"):
        Store.open(tmp_path / "file")
    with pytest.raises(SpecError, match="not supported"):
        Workspace.at(tmp_path, "mysql://x")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/dissect.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(DissectError, match="no SQLite file"):
        Store.open(tmp_path / "bad")
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE wines (name)")
    with pytest.raises(SpecError, match="holds the tables wines"):
        Store.open(Workspace.at(tmp_path, str(foreign)))


def test_odd_file_names(tmp_path: Path) -> None:
    folder = tmp_path / "50% of #1? naïve"
    with makers.open_store(folder) as store:
        makers.save(store)
    assert (folder / "dissect.sqlite").is_file()
    with Store.open(folder, readonly=True) as store:
        assert len(store.runs()) == 1


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    with makers.open_store(tmp_path) as store:
        makers.save(store)
    with Store.open(tmp_path, readonly=True) as reader:
        with pytest.raises(DissectError, match="opened for reading"):
            reader.delete_run("a" * 64)
        with pytest.raises(SpecError, match="read-only"), reader.reading() as connection:
            connection.exec_driver_sql("DELETE FROM runs")
    with Store.open(tmp_path, readonly=True) as reader:
        assert len(reader.runs()) == 1


def test_settings(tmp_path: Path) -> None:
    makers.open_store(tmp_path).close()
    connection = connect_sqlite(str(tmp_path / "dissect.sqlite"), readonly=False)
    settings = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    }
    assert settings == {"journal_mode": "delete", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}
    for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"):
        assert "STRICT" in sql
    with pytest.raises(sqlite3.IntegrityError, match="cannot store TEXT"):
        connection.execute("INSERT INTO unit_areas VALUES (1, 1, 1, 'many')")
    connection.close()


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False), ((3, 44, 5), False), ((3, 44, 6), True), ((3, 45, 9), False), ((3, 50, 6), False),
        ((3, 50, 7), True), ((3, 51, 2), False), ((3, 51, 3), True), ((3, 52, 0), True),
    ],
)  # fmt: skip
def test_wal_only_where_it_is_fixed(version: tuple[int, int, int], safe: bool) -> None:
    assert wal_is_safe(version) is safe


def test_a_file_in_wal_mode_is_put_back(tmp_path: Path) -> None:
    with makers.open_store(tmp_path) as store:
        makers.save(store)
    connection = sqlite3.connect(tmp_path / "dissect.sqlite")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    connection = connect_sqlite(str(tmp_path / "dissect.sqlite"), readonly=False)
    expected = "wal" if wal_is_safe() else "delete"
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == expected
    connection.close()


def test_not_finite_becomes_null(store: Store) -> None:
    makers.save(store, units=5)
    with store.reading() as connection:
        row = connection.exec_driver_sql("SELECT threshold, nonfinite, iou, concept FROM v_units WHERE unit = 4").one()
    assert tuple(row) == (None, 1, 0.0, None)


# Processes.

_FINISH = """
import sys
sys.path.insert(0, {root!r})
from tests.dissect.store import makers
store = makers.open_store({folder!r})
store.begin_run(makers.run_record())
print("begun", flush=True)
makers.save(store, units=3000, concepts=60)
print("done", flush=True)
"""


@pytest.mark.slow
def test_killed_while_finishing_leaves_all_or_nothing(tmp_path: Path) -> None:
    """SIGKILL at eight moments spread over the writing: a finished run is whole, any other has no rows."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def begin(folder: Path) -> subprocess.Popen[bytes]:
        text = _FINISH.format(root=str(ROOT), folder=str(folder))
        child = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, env=environment)
        assert child.stdout is not None
        assert child.stdout.readline() == b"begun\n"
        return child

    quiet = begin(tmp_path / "timed")
    start = time.monotonic()
    quiet.communicate(timeout=60)
    whole = time.monotonic() - start
    expected = score_bytes(tmp_path / "timed/dissect.sqlite")
    seen = set()
    for attempt in range(8):
        folder = tmp_path / str(attempt)
        child = begin(folder)
        time.sleep(whole * (0.25 + 0.75 * attempt / 7))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        with makers.open_store(folder) as store:
            state = store.get_run("a" * 64).state
            seen.add(state)
            if state == "finished":
                assert score_bytes(folder / "dissect.sqlite") == expected
            else:
                assert state == "running"
                assert store.layers("a" * 64) == []
            with store.reading() as connection:
                assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    assert "running" in seen


def _write_runs(folder: str, letters: str) -> None:
    with makers.open_store(folder) as store:
        for letter in letters:
            makers.save(store, makers.run_record(letter * 64), units=200, concepts=30)


def test_two_writers_queue(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_runs, args=(str(tmp_path), letters)) for letters in ("abcd", "efgh")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    with makers.open_store(tmp_path) as store:
        assert sorted(run.id[0] for run in store.runs(["finished"])) == list("abcdefgh")
        with store.reading() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def test_readers_never_stop_a_writer(tmp_path: Path) -> None:
    """Four threads read as fast as they can while runs are written; none sees half a run."""
    with makers.open_store(tmp_path) as store:
        makers.save(store, makers.run_record("0" * 64), units=200, concepts=30)
        stop, problems = threading.Event(), []

        def look() -> None:
            with Store.open(tmp_path, readonly=True) as reader:
                while not stop.is_set():
                    try:
                        for run in reader.runs(["finished"]):
                            layer = reader.layers(run.id)[0]
                            assert len(reader.units(layer).label) == 200
                            assert len(reader.concepts(run.id)) == 30
                    except Exception as error:
                        problems.append(error)
                        return

        readers = [threading.Thread(target=look) for _ in range(4)]
        for reader in readers:
            reader.start()
        start = time.monotonic()
        for letter in "abcdef":
            makers.save(store, makers.run_record(letter * 64), units=200, concepts=30)
        wall = time.monotonic() - start
        stop.set()
        for reader in readers:
            reader.join()
    assert not problems
    assert wall < 30


def test_a_database_in_use_says_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dissect.store import engine

    with makers.open_store(tmp_path) as store:
        makers.save(store)
        holder = sqlite3.connect(tmp_path / "dissect.sqlite", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(engine, "BUSY_SECONDS", 0.1)
        with pytest.raises(RetryLater, match="in use by another process"):
            store.delete_run("a" * 64)
        holder.close()


@pytest.mark.parametrize(
    "name", ["x'); DROP TABLE runs; --", '"; DELETE FROM runs; --', "a' OR '1'='1", "\x00", "%", "_"]
)
def test_identifiers_are_never_statements(store: Store, name: str) -> None:
    makers.save(store)
    with pytest.raises(SpecError):
        store.get_run(name)
    with pytest.raises(SpecError):
        store.layer("a" * 64, name)
    assert len(store.runs()) == 1
