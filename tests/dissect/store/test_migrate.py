"""Databases of every released schema open, lose nothing, and end with the newest schema."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from dissect.errors import SpecError
from dissect.store import Store, engine, migrate
from tests.dissect.store import makers

ASSETS = sorted((Path(__file__).parent / "data").glob("schema-*.sql"))

# The contract: names are only ever added, at the end.
VIEWS = {
    "v_units": (
        "run run_name layer unit concept category iou intersection unit_area concept_area threshold rank "
        "dead saturated nonfinite iou_low iou_high stability p_value q_value iou_null precision recall f1 phi iqr ap"
    ),
    "v_best_label": (
        "run run_name layer unit concept category iou intersection unit_area concept_area threshold "
        "iou_low iou_high stability p_value q_value iou_null precision recall f1 phi iqr ap"
    ),
    "v_concepts": "run run_name layer concept category area images units detectors best_iou best_unit",
}


def old_database(folder: Path, asset: Path) -> Path:
    path = folder / "dissect.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(asset.read_text(encoding="utf-8"))
    connection.close()
    return path


def schema(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Columns of every table and view, and the indices, as SQLite sees them."""
    connection = sqlite3.connect(path)
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
    found = {name: connection.execute(f"SELECT * FROM pragma_table_info('{name}')").fetchall() for name in names}
    found["indices"] = sorted(
        connection.execute("SELECT name, tbl_name FROM sqlite_master WHERE type = 'index'").fetchall()
    )
    connection.close()
    return found


def dump(path: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT * FROM v_units ORDER BY run, layer, unit").fetchall()
    connection.close()
    return rows


def test_every_released_schema_is_kept() -> None:
    assert [asset.stem for asset in ASSETS] == [f"schema-{step.version}" for step in migrate.STEPS]


@pytest.mark.parametrize("asset", ASSETS, ids=lambda path: path.stem)
def test_old_databases_open(tmp_path: Path, asset: Path) -> None:
    path = old_database(tmp_path, asset)
    before = dump(path)
    with Store.open(tmp_path) as store:
        assert [(run.name, run.state) for run in store.runs()] == [("old", "finished"), (None, "failed")]
        assert len(store.units(store.layer("1" * 64, "fc")).label) == 6
    makers.open_store(tmp_path / "new").close()
    assert schema(path) == schema(tmp_path / "new/dissect.sqlite")
    width = len(before[0])
    assert [row[:width] for row in dump(path)] == before


def test_views_are_frozen(tmp_path: Path) -> None:
    makers.open_store(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "dissect.sqlite")
    for view, names in VIEWS.items():
        assert [item[0] for item in connection.execute(f"SELECT * FROM {view}").description] == names.split()
    connection.close()


def test_views_agree_with_the_tables(tmp_path: Path) -> None:
    with makers.open_store(tmp_path) as store:
        makers.save(store, units=40, concepts=30, layers=("conv", "fc"))
        store.begin_run(makers.run_record("b" * 64))
        layer = store.layer("a" * 64, "fc")
        units, scores, concepts = store.units(layer), store.scores(layer), store.concepts("a" * 64)
        with store.reading() as connection:
            rows = connection.exec_driver_sql("SELECT * FROM v_units WHERE layer = 'fc' ORDER BY unit").mappings().all()
            best = connection.exec_driver_sql("SELECT unit FROM v_best_label WHERE layer = 'fc' ORDER BY unit").all()
            table = connection.exec_driver_sql("SELECT * FROM v_concepts WHERE layer = 'fc'").mappings().all()
    names = {concept.number: concept.name for concept in concepts}
    assert [row["unit"] for row in rows] == list(range(40))
    assert [row["concept"] for row in rows] == [names.get(int(number)) for number in units.label]
    assert [row["iou"] for row in rows] == units.iou.tolist()
    for row in rows:
        union = row["unit_area"] + row["concept_area"] - row["intersection"]
        assert row["iou"] == (row["intersection"] / union if union else 0.0)
    assert [row[0] for row in best] == [unit for unit in range(40) if units.iou[unit] > 0.04]
    assert len(table) == 30
    for row in table:
        number = next(concept.number for concept in concepts if concept.name == row["concept"])
        mine = scores.concept == number
        assert row["units"] == int((units.label == number).sum())
        assert row["detectors"] == int(((units.label == number) & (units.iou > 0.04)).sum())
        assert row["best_iou"] == (scores.iou[mine].max() if mine.any() else None)


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    makers.open_store(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "dissect.sqlite")
    connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    connection.commit()
    connection.close()
    for readonly in (False, True):
        with pytest.raises(SpecError, match=r"schema version 99, .* knows up to \d+: update dissect"):
            Store.open(tmp_path, readonly=readonly)


def _add_note(connection) -> None:
    connection.execute(text("ALTER TABLE units ADD COLUMN note TEXT"))


def _fail(connection) -> None:
    connection.execute(text("ALTER TABLE units ADD COLUMN other TEXT"))
    raise RuntimeError("power cut")


NEXT = migrate.Step(migrate.LATEST + 1, "notes", _add_note)


def test_a_step_and_its_record_are_one_transaction(tmp_path: Path) -> None:
    makers.open_store(tmp_path).close()
    path = tmp_path / "dissect.sqlite"
    before = schema(path)
    bad = migrate.Step(NEXT.version + 1, "fails", _fail)
    writer = engine.open_engine(engine.parse(f"sqlite:///{path}"), readonly=False)
    with pytest.raises(RuntimeError, match="power cut"):
        migrate.upgrade(writer, (*migrate.STEPS, NEXT, bad))
    after = schema(path)
    assert [column[1] for column in after["units"]] == [column[1] for column in before["units"]] + ["note"]
    with writer.connect() as connection:
        assert migrate.version(connection) == NEXT.version
        assert connection.execute(text("SELECT name FROM migrations ORDER BY version")).scalars().all()[-1] == "notes"
    assert migrate.upgrade(writer, (*migrate.STEPS, NEXT)) == []
    for view in VIEWS:
        assert after[view] == before[view]


def test_fresh_databases_record_every_step(tmp_path: Path) -> None:
    makers.open_store(tmp_path).close()
    with Store.open(tmp_path, readonly=True) as store, store.reading() as connection:
        found = connection.exec_driver_sql("SELECT version, name FROM migrations ORDER BY version").all()
    assert [tuple(row) for row in found] == [(step.version, step.name) for step in migrate.STEPS]
