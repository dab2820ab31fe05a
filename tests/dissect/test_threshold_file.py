"""Thresholds go out, come back and count the same; wrong files are refused with line and column."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from dissect.cli.main import main
from dissect.errors import SpecError
from dissect.threshold_file import read_thresholds
from tests.dissect.test_cli_run import NET, run, scores
from tests.dissect.tiny import TinySet


def test_columns_in_any_order_and_other_layers(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\ufeffthreshold,note,unit,layer\n0.5,x,1,a\n-1e-3,,0,a\n7,,0,b\n,,2,a\n", encoding="utf-8")
    found = read_thresholds(path, ["a"])
    assert list(found) == ["a"]
    assert found["a"].dtype == np.float32
    assert found["a"].tolist() == [np.float32(-1e-3), 0.5, np.inf]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer,unit\na,0\n", "no column 'threshold': expected layer, unit, threshold, found layer, unit"),
        ("", "found nothing"),
        ("layer,unit,threshold\na,0,1\na,0,2\n", "line 3, column unit: unit 0 of layer 'a' stands there twice"),
        ("layer,unit,threshold\na,x,1\n", "line 2, column unit: 'x' is no unit"),
        ("layer,unit,threshold\na,-1,1\n", "line 2, column unit: '-1' is no unit"),
        ("layer,unit,threshold\na,0,1,5\na,1,nan\n", "line 3, column threshold: 'nan' is no number"),
        ('layer,unit,threshold\na,0,"0,5"\n', "line 2, column threshold: '0,5' is no number"),
        ("layer,unit,threshold\na,0,1\na,2,1\n", "lack unit 1 of layer 'a'"),
        ("layer,unit,threshold\nb,0,1\n", "no line for layer 'a'"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        read_thresholds(path, ["a"])
    with pytest.raises(SpecError, match="cannot be read"):
        read_thresholds(tmp_path / "absent.csv", ["a"])


def test_exported_thresholds_give_the_same_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TinySet(tmp_path / "data", images=30)
    (tmp_path / "net.py").write_text(NET)
    workspace, file = tmp_path / "ws", tmp_path / "t.csv"
    arguments = ["--layer", "0", "--layer", "2", "--no-report"]
    assert run(tmp_path, workspace, *arguments, "--name", "found") == 0
    export = ["export", "found", "--format", "thresholds", "-o", str(file), "--workspace", str(workspace)]
    assert main(export) == 0
    other = tmp_path / "other"
    assert run(tmp_path, other, *arguments, "--thresholds", str(file)) == 0
    assert scores(other) == scores(workspace)
    with sqlite3.connect(other / "dissect.sqlite") as db:
        provenance = db.execute("SELECT provenance FROM runs").fetchone()[0]
    assert '"thresholds": "given by t.csv"' in provenance
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line for line in lines if not line.startswith("2,3,")) + "\n")
    capsys.readouterr()
    assert run(tmp_path, other, *arguments, "--thresholds", str(file)) == 2
    assert "layer '2'" in capsys.readouterr().err
