"""The command line as documented: every command explains itself, and help needs no heavy library."""

import subprocess
import sys
from pathlib import Path

import pytest

from dissect.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTED = (
    (ROOT / "README.md").read_text() + (ROOT / "ARCHITECTURE.md").read_text() + (ROOT / "CHANGELOG.md").read_text()
)


@pytest.mark.parametrize("command", main.commands())
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: dissect {command}")
    assert len(text.splitlines()) > 5


@pytest.mark.parametrize("command", main.commands())
def test_every_command_is_documented(command: str) -> None:
    assert f"dissect {command}" in DOCUMENTED


def test_every_command_is_on_the_help_page_in_its_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(main.commands()) <= set(main.ORDER)
    assert main.main(["--help"]) == 0
    text = capsys.readouterr().out
    places = [text.index(f"\n    {command}") for command in main.commands()]
    assert places == sorted(places)


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys; from dissect.cli.main import build_parser; build_parser();"
        "print([m for m in ('torch', 'torchvision', 'sqlalchemy', 'numpy', 'PIL', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["run"], ["query", "units", "--format", "xls"]])
def test_usage_errors_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(arguments) == 2
    assert "usage: dissect" in capsys.readouterr().err
