"""Child processes: their ends are told apart, they die with their worker, and the process that forks them may die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import pytest

from dissect.cli.main import main
from dissect.service.children import Child, End
from dissect.service.worker import _FINAL
from tests.dissect.service.test_worker import POISON, place, spec, start, wait_for
from tests.dissect.test_cli_run import NET
from tests.dissect.tiny import TinySet

__all__ = ["place"]


def task(workspace: Path, **more: object) -> dict[str, object]:
    return {"workspace": str(workspace), "db": f"sqlite:///{workspace}/x.sqlite", "run": "0" * 16, **more}


def never() -> bool:
    return False


def done(workspace: Path, stop: Callable[[], bool] = never, **options: float) -> End | None:
    """One task in a process of its own."""
    with Child() as child:
        return child.do(task(workspace, kind="finish"), stop, **options)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_mistake_is_told_with_its_code(tmp_path: Path) -> None:
    end = done(tmp_path)
    assert end is not None
    assert end.code == 2
    assert end.code in _FINAL
    assert end.complaint.startswith(f"no shards of run {'0' * 16} in this workspace")


def test_a_stop_kills_it(tmp_path: Path) -> None:
    assert done(tmp_path, lambda: True, every=0.0) is None


def test_the_process_that_forks_may_die(tmp_path: Path) -> None:
    """A failed attempt at worst; the next one has another process to be forked from."""
    assert done(tmp_path) is not None
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]
    codes = set[int]()
    limit = time.monotonic() + 20
    while 2 not in codes and time.monotonic() < limit:
        end = done(tmp_path)
        assert end is not None
        codes.add(end.code)
    assert 2 in codes
    assert codes <= {2, -signal.SIGKILL}


@pytest.mark.slow
def test_no_child_outlives_its_worker(tmp_path: Path) -> None:
    TinySet(tmp_path / "data", images=30)
    (tmp_path / "net.py").write_text(NET + POISON.replace(NET, "").replace("os.kill(os.getpid(), 9)", "time.sleep(99)")
                                     .replace("import os", "import os, time").replace("amin", "amax"))  # fmt: skip
    workspace = tmp_path / "ws"
    hanging = spec(tmp_path, tmp_path, 1, "poison", layers=["inner.0"], mean=[-9.0] * 3, std=[1.0] * 3)
    assert main(["submit", str(hanging), "--workspace", str(workspace)]) == 0
    worker = start(workspace)
    wait_for(workspace, "attempt 1")
    time.sleep(4)  # by now it hangs in the forward pass
    text = subprocess.run(["ps", "-eo", "pid,sid,ppid"], capture_output=True, text=True, check=True).stdout
    rows = [tuple(map(int, line.split())) for line in text.splitlines()[1:]]
    family = {worker.pid}
    while more := {pid for pid, _, parent in rows if parent in family} - family:
        family |= more
    assert len(family) >= 3
    worker.kill()
    worker.wait()
    end = time.monotonic() + 10
    while any(alive(pid) for pid in family):
        assert time.monotonic() < end, [pid for pid in family if alive(pid)]
        time.sleep(0.05)


def test_a_worker_needs_no_torch() -> None:
    """It lives for days beside the work; what loads networks is its children."""
    code = "import sys, dissect.service.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
