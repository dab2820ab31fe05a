"""Specs: what they span, and what is refused before any work."""

from pathlib import Path

import pytest

from dissect.cli.main import main
from dissect.errors import SpecError
from dissect.service.spec import read_spec

RUN = '[[run]]\nmodel = "demo"\nlayers = ["conv5"]\ndata = "d"\n'


def read(tmp_path: Path, text: str):  # type: ignore[no-untyped-def]
    path = tmp_path / "spec.toml"
    path.write_text(text)
    return read_spec(path)


def test_lists_span(tmp_path: Path) -> None:
    text = '[[run]]\nmodel = ["a", "b"]\nlayers = ["x", "y"]\ndata = ["p/one", "two"]\n'
    text += 'name = "{model} {data}"\nmean = 0.5\n'
    spec = read(tmp_path, "priority = 3\nshards = 4\n" + text + RUN)
    assert (spec.priority, spec.shards, len(spec.requests)) == (3, 4, 5)
    assert [request.name for request in spec.requests] == ["a one", "a two", "b one", "b two", None]
    assert spec.requests[0].layers == ("x", "y")
    assert spec.requests[0].mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "asks for no run"),
        ("[run]\n", "asks for no run"),
        ("priorty = 1\n" + RUN, "unknown key 'priorty'.*did you mean priority"),
        (RUN + "quantil = 0.1\n", "run 1: unknown key 'quantil'.*did you mean quantile"),
        (RUN + RUN.replace('data = "d"\n', ""), "run 2: data is missing"),
        (RUN + "limit = true\n", "limit is True, expected int"),
        (RUN + 'limit = "5"\n', "limit is '5', expected int"),
        (RUN + "mean = [1.0]\n", "expected three numbers"),
        (RUN.replace('"demo"', '["a", "b"]') + 'name = "n"\n', "would share the name 'n'"),
        ("shards = 65\n" + RUN, "shards is 65, expected 1 to 64"),
        ("a = = 1", "is no TOML"),
    ],
)
def test_wrong_specs_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read(tmp_path, text)


def test_a_missing_file_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(RUN)
    workspace = tmp_path / "ws"
    assert main(["submit", str(path), "--workspace", str(workspace)]) == 2
    assert "run 1 of 1: d: no such folder" in capsys.readouterr().err
    assert not (workspace / "dissect.sqlite").exists()
    assert main(["submit", str(tmp_path / "absent.toml")]) == 2
