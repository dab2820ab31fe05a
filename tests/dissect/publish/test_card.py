"""A unit's card from Python and from the command line: the row's numbers, everything escaped, no other file."""

import re
from pathlib import Path

import pytest

import dissect
from dissect.cli.main import main
from dissect.errors import SpecError
from reports import text
from tests.dissect.store import makers

BAD = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cards")
    with makers.open_store(root) as store:
        makers.save(store, makers.run_record(name="mine"), units=9, concepts=14, layers=("conv",), names=[BAD] * 14)
    return root


def test_card_has_the_rows_numbers(workspace: Path) -> None:
    work = dissect.open(workspace)
    for row in work.units(run="mine", layer="conv"):
        html = work.card("mine", "conv", row["unit"])._repr_html_()
        assert BAD not in html
        assert not re.search(r"(?:src|href)=\"(?!data:)", html)
        if row["concept"] is not None:
            numbers = [text.integer(row[name]) for name in ("intersection", "unit_area", "concept_area")]
            assert "IoU {} = {} / ({} + {} − ".format(f"{row['iou']:.4f}", *numbers) in html
            assert "&lt;img src=x" in html


def test_what_is_not_there_is_told(workspace: Path) -> None:
    work = dissect.open(workspace)
    for layer, unit, told in (("conv", 9, "units 0 to 8, not 9"), ("cov", 0, "conv"), ("conv", -1, "units 0 to 8")):
        with pytest.raises(SpecError, match=told):
            work.card("mine", layer, unit)


def test_command(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--workspace", str(workspace)]
    assert main(["report", "mine", "--card", "conv:3", *place]) == 0
    assert capsys.readouterr().out.strip() == dissect.open(workspace).card("mine", "conv", 3).html
    assert not (workspace / "reports").exists()
    for wrong in ("conv", "conv:", ":3", "conv:x"):
        assert main(["report", "mine", "--card", wrong, *place]) == 2
        assert "LAYER:UNIT" in capsys.readouterr().err
