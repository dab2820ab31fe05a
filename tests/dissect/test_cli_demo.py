"""`dissect demo`, on fewer pictures than it shows to people."""

import json
import sqlite3
from pathlib import Path

import pytest

from dissect.cli import cmd_demo
from dissect.cli.main import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "work"


@pytest.fixture(autouse=True)
def _few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cmd_demo, "IMAGES", 100)


@pytest.mark.slow
def test_the_whole_product_then_again_from_what_is_there(workspace: Path, capsys: Captured) -> None:
    assert main(["demo", "--out", str(workspace)]) == 0
    first = capsys.readouterr()
    lines = first.out.splitlines()
    assert lines == [str(workspace / "reports" / "demo" / "index.html")]  # stdout is for machines
    assert Path(lines[0]).is_file()
    assert (workspace / "reports" / "demo-untrained" / "index.html").is_file()
    assert "dissect query units --run demo --category object --detectors --top 5 --workspace" in first.err
    assert "generating 100 pictures" in first.err

    assert main(["demo", "--workspace", str(workspace), "--json"]) == 0
    second = capsys.readouterr()
    assert "generating" not in second.err
    assert "both runs were finished already" in second.err
    said = json.loads(second.out.splitlines()[-1])
    assert said["report"] == lines[0]
    assert Path(said["comparison"]).is_file()

    with sqlite3.connect(workspace / "dissect.sqlite") as database:
        stored = database.execute(
            "SELECT run_name, category, count(*) FROM v_best_label GROUP BY run_name, category"
        ).fetchall()
    counted = {(name, kind): count for name, kind, count in stored}
    for kind, found in said["detectors"].items():
        assert found == {model: counted.get((name, kind), 0) for model, name in cmd_demo.NAMES.items()}, kind
    totals = {model: sum(found[model] for found in said["detectors"].values()) for model in cmd_demo.NAMES}
    assert totals == {model: said["runs"][model]["layers"]["conv5"]["detectors"] for model in cmd_demo.NAMES}
    assert totals["demo"] > 2 * totals["demo:untrained"]


@pytest.mark.slow
def test_a_name_that_is_taken_has_a_way_out(workspace: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["demo", "--out", str(workspace)]) == 0
    monkeypatch.setattr(cmd_demo, "IMAGES", 60)
    capsys.readouterr()
    assert main(["demo", "--out", str(workspace)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "the name 'demo' belongs to run" in told.err
    assert "dissect demo --out DIR" in told.err
