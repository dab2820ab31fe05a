"""A workspace on a disk that cannot be written: reading works, writing says what is the matter and the way out."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dissect import publish
from tests.dissect.store import makers

DROP, OVERRIDE, SEARCH = 24, 1, 2  # prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE or CAP_DAC_READ_SEARCH)
ROOT = Path(__file__).resolve().parents[3]


def no_longer_almighty() -> None:
    """In the child: root, too, obeys the modes of files from now on."""
    libc = ctypes.CDLL(None)
    libc.prctl(DROP, OVERRIDE, 0, 0, 0)
    libc.prctl(DROP, SEARCH, 0, 0, 0)


def run(code: str, *more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-B", "-c", code, *more],
        check=False,
        cwd=ROOT,
        preexec_fn=no_longer_almighty,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def command(*words: str) -> "subprocess.CompletedProcess[str]":
    return run("import sys; from dissect.cli.main import main; sys.exit(main(sys.argv[1:]))", *words)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("frozen") / "w"
    with makers.open_store(root) as store:
        makers.save(store, makers.run_record("1" * 64, "one"), units=12)
        makers.save(store, makers.run_record("2" * 64, "two"), units=12, seed=2)
        publish.publish_run(store, "one")
        publish.publish_workspace(store)
    places = [root, *root.rglob("*")]
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    if run("import sys; open(sys.argv[1], 'w')", str(root / "probe")).returncode == 0:
        pytest.skip("this system lets root write everywhere")
    return root


def test_reading_works(frozen: Path) -> None:
    place = ("--workspace", str(frozen))
    found = command("query", "units", "--run", "one", "--format", "json", *place)
    assert (found.returncode, found.stdout.count('"unit":')) == (0, 12), found.stderr
    assert command("query", "sql", "SELECT 1", *place).returncode == 0


def test_a_report_says_why_it_cannot_be_written_and_can_go_elsewhere(frozen: Path, tmp_path: Path) -> None:
    place = ("--workspace", str(frozen))
    for words in (("report", "one"), ("compare", "one", "two")):
        refused = command(*words, *place)
        assert refused.returncode == 1
        assert f"cannot be written into {frozen}/reports (permission denied)" in refused.stderr
        assert "--out DIR" in refused.stderr
        elsewhere = command(*words, *place, "--out", str(tmp_path / words[0]))
        assert elsewhere.returncode == 0, elsewhere.stderr
        assert (tmp_path / words[0] / "index.html").is_file()
    assert not [left for left in (frozen / "reports").iterdir() if "building" in left.name]


SERVED = """
import sys
from fastapi.testclient import TestClient
from dissect.serve.app import application
from dissect.serve.limits import Limits
from dissect.workspace import Workspace
with TestClient(application(Workspace.at(sys.argv[1]), (), Limits()), base_url="http://127.0.0.1:8712") as client:
    for path in ("/reports/", "/reports/one/index.html", "/reports/one/layers/0-conv/index.json", "/api/units?run=two"):
        print(client.get(path).status_code)
"""


def test_serving_works(frozen: Path) -> None:
    pytest.importorskip("fastapi", reason="the extra [serve] is missing")
    found = run(SERVED, str(frozen))
    assert found.stdout.split() == ["200"] * 4, found.stderr
