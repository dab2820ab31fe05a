"""A part of the campaign in `fuzz`, on a real socket; and a server that runs as the command starts it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.dissect.serve import fuzz


def test_hostile_requests(served: Path) -> None:
    """No 5xx, no silence, no write."""
    seen, bad, changed = fuzz.attack(served, 400, seed=20)
    assert not bad
    assert not changed
    assert {200, 400, 404, 405} <= seen.keys()  # the generator reaches past the door


@pytest.mark.slow
def test_the_command(served: Path) -> None:
    """Prints its address on stdout, answers, ends on an interrupt; a workspace without a database is refused."""
    program = [sys.executable, "-m", "dissect.cli.main", "serve", "--port", "0", "--workspace"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*program, str(served)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout
        try:
            address = process.stdout.readline().strip()
            with urlopen(address + "api/runs.csv", timeout=20) as answer:
                assert answer.read().startswith(b"run,name,state")
            process.send_signal(signal.SIGINT)
            process.wait(20)
        finally:
            process.kill()
    refused = subprocess.run([*program, str(served / "nowhere")], capture_output=True, text=True, check=False)
    assert (refused.returncode, "there is no database" in refused.stderr) == (2, True)
