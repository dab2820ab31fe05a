"""A fixed part of `make torture`, and whether the harness would notice a loss.

It runs in a process of its own: runs are forked from it, which is not safe once torch has threads, as it has here.
"""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.families import FAMILIES

FIXED = [name for name, family in FAMILIES.items() if family.fixed]


@pytest.fixture(scope="module")
def table() -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture", "--fixed"], capture_output=True, text=True, check=False, timeout=600
    )
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in done.stdout.splitlines()[2:]]
    assert len(rows) == len(FIXED), done.stderr
    return {name: [*row, done.stderr] for name, row in zip(FIXED, rows)}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIXED)
def test_nothing_is_lost(table: dict[str, list[str]], name: str) -> None:
    title, injected, survived, lost, *said = table[name]
    assert title == FAMILIES[name].title
    if name == "disk" and injected == "0":
        pytest.skip(said[0])
    assert int(injected.replace(",", "")) >= FAMILIES[name].fixed or name.startswith("kill-"), said
    assert (injected, lost) == (survived, "0"), said


@pytest.mark.slow
def test_the_points_of_a_run_are_the_ones_that_matter() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture.calls", "--list"], capture_output=True, text=True, check=True
    )
    names = {line.strip().partition("  ")[2] for line in done.stdout.splitlines()}
    assert names >= {
        "pwrite /dissect.sqlite", "pwrite /dissect.sqlite-journal", "fsync /dissect.sqlite",
        "fsync /dissect.sqlite-journal", "unlink /dissect.sqlite-journal", "write /cache/#/#-counts.#.tmp",
        "fsync /cache/#/#-counts.#.tmp", "rename /cache/#/#-counts.npy", "rename /reports/same",
        "rename /reports/_workspace", "write /reports/.same.#.building/index.html",
    }  # fmt: skip
    assert len(names) >= 80


CHANGES = {
    "nothing": lambda workspace: None,
    "a page": lambda workspace: (workspace / "reports" / "same" / "index.html").write_text("other"),
    "a page that is gone": lambda workspace: (workspace / "reports" / "same" / "index.html").unlink(),
    "a page too many": lambda workspace: (workspace / "reports" / "same" / "x.html").write_text("x"),
    "a score": lambda workspace: _execute(workspace, "UPDATE scores SET iou = iou / 2 WHERE unit = 1 AND rank = 1"),
    "a row": lambda workspace: _execute(workspace, "DELETE FROM exemplars WHERE unit = 1 AND rank = 1"),
    "a state": lambda workspace: _execute(workspace, "UPDATE runs SET state = 'running'"),
}


def _execute(workspace: Path, statement: str) -> None:
    with sqlite3.connect(workspace / "dissect.sqlite") as db:
        assert db.execute(statement).rowcount >= 1


@pytest.mark.slow
def test_the_harness_would_notice(tmp_path: Path) -> None:
    """Whatever is changed in a finished run, its digest is another."""
    code = (
        "import json, shutil, sys\nfrom pathlib import Path\nfrom tests.torture.place import Place, result\n"
        "from tests.torture.test_fixed import CHANGES\nfolder = Path(sys.argv[1])\nplace = Place(folder / 'place')\n"
        "quiet, found = place.quiet(), {}\nfor name, change in CHANGES.items():\n"
        "    there = folder / 'changed'\n    shutil.copytree(place.folder / 'quiet', there)\n    change(there)\n"
        "    found[name] = result(there) == quiet\n    shutil.rmtree(there)\nprint(json.dumps(found))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == {name: name == "nothing" for name in CHANGES}, done.stderr
