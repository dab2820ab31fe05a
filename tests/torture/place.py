"""Where faults are injected: a data set, a network, and what a quiet run of them ends with."""

import hashlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dissect.cli.main import main
from tests.dissect.test_cli_run import NET, tree
from tests.dissect.tiny import TinySet

NAME = "same"


@dataclass
class Tally:
    """Faults injected and survived; `seen` counts what else is worth saying."""

    injected: int = 0
    survived: int = 0
    seen: str = ""

    @property
    def lost(self) -> int:
        return self.injected - self.survived

    def count(self, survived: bool, faults: int = 1) -> None:
        self.injected += faults
        self.survived += faults * survived


def begin(arguments: list[str], before: Callable[[], object] = lambda: None) -> int:
    """Start `dissect …` in a process forked from this one, which has imported what is slow to import; its pid.

    before: what the new process does first.
    """
    from dissect import models, pipeline, publish, service, shards, store  # noqa: F401

    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        sys.stdout = sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - for the life of the process
        before()
        code = main(arguments)
    finally:
        os._exit(code)


def end(pid: int) -> int:
    """Wait for a process of `begin`; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(arguments: list[str], before: Callable[[], object] = lambda: None) -> int:
    """`dissect …` from beginning to end; its exit code."""
    return end(begin(arguments, before))


@dataclass
class Place:
    """A folder with data, a network and a quiet run of it."""

    folder: Path
    model: str = "build"
    source: str = NET

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        TinySet(self.folder / "data", images=60)
        (self.folder / "net.py").write_text(self.source)
        self.digest = hashlib.sha256((self.folder / "net.py").read_bytes()).hexdigest()

    def command(self, workspace: Path, *more: str) -> list[str]:
        """`dissect run` of the whole."""
        return [
            "run", f"{self.folder / 'net.py'}:{self.model}", "--trust-code", self.digest, "--data",
            str(self.folder / "data"), "--quantile", "0.05", "--batch-size", "2", "--layer", "0", "--layer", "2",
            "--name", NAME, "--workspace", str(workspace), *more,
        ]  # fmt: skip

    def submit(
        self, workspace: Path, shards: int, layers: tuple[str, ...] = ("0", "2"), more: Sequence[str] = ()
    ) -> None:
        """Queue the same as a job."""
        workspace.mkdir(parents=True, exist_ok=True)
        values = {
            "model": f"{self.folder / 'net.py'}:{self.model}", "trust": self.digest, "layers": list(layers),
            "data": str(self.folder / "data"), "quantile": 0.05, "batch_size": 2, "name": NAME,
        }  # fmt: skip
        if self.model == "poison":
            values |= {"mean": [0.0] * 3, "std": [1.0] * 3}
        lines = [f"shards = {shards}", "[[run]]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        (workspace / "spec.toml").write_text("\n".join(lines))
        assert run(["submit", str(workspace / "spec.toml"), "--workspace", str(workspace), *more]) == 0

    def worker(self, workspace: Path, *more: str) -> list[str]:
        """`dissect worker`, impatient."""
        return ["worker", "--workspace", str(workspace), "--lease", "1", "--pause", "0.05", *more]

    def quiet(self) -> str:
        """What a run that nothing disturbs ends with."""
        workspace = self.folder / "quiet"
        if not workspace.exists():
            assert run(self.command(workspace)) == 0
        return result(workspace)


def remains(workspace: Path, *more: str) -> set[str]:
    """Files that stay after `dissect gc`, which takes what killed processes were writing for hours old; locks apart."""
    past = time.time() - 7200
    for path in workspace.rglob("*"):
        os.utime(path, (past, past))
    assert run(["gc", "--yes", "--workspace", str(workspace), *more]) == 0
    found = {path.relative_to(workspace).as_posix() for path in workspace.rglob("*") if path.is_file()}
    return {name for name in found if not Path(name).name.startswith("lock")}


def result(workspace: Path) -> str:
    """Digest of everything that was found, pages included; empty where there is no finished run or the database is not
    sound."""
    try:
        with closing(sqlite3.connect(f"file:{workspace / 'dissect.sqlite'}?mode=ro", uri=True)) as db:
            if db.execute("SELECT state FROM runs").fetchall() != [("finished",)]:
                return ""
            if (
                db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
                or db.execute("PRAGMA foreign_key_check").fetchall()
            ):
                return ""
            found = [
                db.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()
                for table, order in (
                    ("units", "layer_id, unit"), ("unit_areas", "layer_id, unit, category"),
                    ("scores", "layer_id, unit, rank"), ("exemplars", "layer_id, unit, rank"),
                    ("concepts", "number"), ("categories", '"index"'), ("excluded", "position"),
                )
            ]  # fmt: skip
    except sqlite3.Error:
        return ""
    pages = tree(workspace / "reports" / NAME)
    return hashlib.sha256(repr((found, sorted(pages.items()))).encode()).hexdigest()
