"""The same code on PostgreSQL: what goes in comes out, the views say the same, and writers queue."""

import threading
from pathlib import Path

import numpy as np
import pytest

from dissect.errors import DissectError, RetryLater
from dissect.store import Store
from dissect.workspace import Workspace
from tests.dissect.store import makers


def test_the_same_rows_as_on_sqlite(tmp_path: Path, postgres_url: str) -> None:
    rows = []
    for workspace in (Workspace.at(tmp_path / "s"), Workspace.at(tmp_path / "p", postgres_url)):
        with Store.open(workspace) as store:
            makers.save(store, units=60, concepts=30, layers=("conv", "fc"))
            layer = store.layer("a" * 64, "fc")
            columns = [*vars(store.units(layer)).values(), *vars(store.scores(layer)).values()]
            columns += [*vars(store.exemplars(layer)).values(), store.unit_areas(layer)]
            with store.reading() as connection:
                views = [
                    connection.exec_driver_sql(f"SELECT * FROM {view} ORDER BY {order}").all()
                    for view, order in (
                        ("v_units", "layer, unit"), ("v_best_label", "layer, unit"), ("v_concepts", "layer, concept"),
                    )
                ]  # fmt: skip
            rows.append((columns, [[tuple(row) for row in view] for view in views], store.concepts("a" * 64)))
    for one, other in zip(rows[0][0], rows[1][0]):
        np.testing.assert_array_equal(one, other)
    assert rows[0][1:] == rows[1][1:]


def test_two_creators_and_writers(tmp_path: Path, postgres_url: str) -> None:
    problems: list[BaseException] = []

    def write(letters: str) -> None:
        try:
            with Store.open(Workspace.at(tmp_path, postgres_url)) as store:
                for letter in letters:
                    makers.save(store, makers.run_record(letter * 64))
        except BaseException as error:
            problems.append(error)

    writers = [threading.Thread(target=write, args=(letters,)) for letters in ("abc", "def")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not problems
    with Store.open(Workspace.at(tmp_path, postgres_url), readonly=True) as store:
        assert len(store.runs(["finished"])) == 6
        with pytest.raises(DissectError), store.reading() as connection:
            connection.exec_driver_sql("DELETE FROM runs")
    with Store.open(Workspace.at(tmp_path, postgres_url)) as store:
        store.delete_run("a" * 64)
        assert len(store.runs()) == 5


def test_an_absent_server_says_try_again(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    url = f"postgresql+psycopg://someone:secret@/none?host={tmp_path}"
    with pytest.raises(RetryLater, match="cannot be reached") as caught:
        Store.open(Workspace.at(tmp_path, url))
    assert "secret" not in str(caught.value)
