"""One function for each kind of fault: a folder and how many, in; a tally, out."""

import hashlib
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

import broden
from dissect.store.ledger import Ledger
from tests.dissect.service import test_ledger
from tests.dissect.service.test_worker import POISON
from tests.dissect.store import makers
from tests.dissect.test_cli_run import NET
from tests.dissect.tiny import TinySet

_ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@dataclass
class Tally:
    injected: int = 0
    survived: int = 0

    @property
    def lost(self) -> int:
        return self.injected - self.survived

    def count(self, survived: bool, faults: int = 1) -> None:
        self.injected += faults
        self.survived += faults * survived


@dataclass
class Place:
    """A data set, a network, and the rows that a quiet run ends with."""

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
            sys.executable, "-m", "dissect.cli.main", "run", f"{self.folder / 'net.py'}:{self.model}", "--trust-code",
            self.digest, "--data", str(self.folder / "data"), "--quantile", "0.05", "--batch-size", "2", "--layer", "0",
            "--layer", "2", "--name", "same", "--workspace", str(workspace), *more,
        ]  # fmt: skip

    def submit(self, workspace: Path, shards: int = 3, layers: tuple[str, ...] = ("0", "2")) -> None:
        workspace.mkdir(parents=True, exist_ok=True)
        values = {
            "model": f"{self.folder / 'net.py'}:{self.model}", "trust": self.digest, "layers": list(layers),
            "data": str(self.folder / "data"), "quantile": 0.05, "batch_size": 2, "name": "same",
        }  # fmt: skip
        if self.model != "build":
            values |= {"mean": [0.0] * 3, "std": [1.0] * 3}
        lines = [f"shards = {shards}", "[[run]]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        (workspace / "spec.toml").write_text("\n".join(lines))
        run(
            [
                sys.executable,
                "-m",
                "dissect.cli.main",
                "submit",
                str(workspace / "spec.toml"),
                "--workspace",
                str(workspace),
            ]
        )

    def quiet(self) -> str:
        workspace = self.folder / "quiet"
        assert run(self.command(workspace)) == 0
        return rows(workspace)


def run(command: list[str], **options: object) -> int:
    done = subprocess.run(  # type: ignore[call-overload]
        command, env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, **options
    )
    return int(done.returncode)


def rows(workspace: Path) -> str:
    """Digest of all scores; empty where there is no finished run."""
    try:
        with sqlite3.connect(f"file:{workspace / 'dissect.sqlite'}?mode=ro", uri=True) as db:
            if db.execute("SELECT state FROM runs").fetchall() != [("finished",)]:
                return ""
            found = db.execute("SELECT * FROM scores ORDER BY layer_id, unit, rank").fetchall()
    except sqlite3.Error:
        return ""
    return hashlib.sha256(repr(found).encode()).hexdigest()


def kill_run(folder: Path, count: int) -> Tally:
    """Each run is killed at several moments, then left to end."""
    place, tally, chance = Place(folder / "place"), Tally(), random.Random(0)
    expected = place.quiet()
    begun = time.monotonic()
    run(place.command(folder / "timed"))
    length = time.monotonic() - begun
    number = 0
    while tally.injected < count:
        workspace, kills = folder / f"w{number}", min(4, count - tally.injected)
        number += 1
        for _ in range(kills):
            process = subprocess.Popen(
                place.command(workspace), env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(length * chance.uniform(0.3, 1.0))
            process.kill()
            process.wait()
        tally.count(run(place.command(workspace)) == 0 and rows(workspace) == expected, kills)
    return tally


def kill_worker(folder: Path, count: int) -> Tally:
    """Workers are killed one after another in the middle of a shard; at most one shard is redone for each."""
    return _kill(folder, count, lambda worker: worker.pid)


def kill_child(folder: Path, count: int) -> Tally:
    """The child process of a worker is killed: a failed attempt."""

    def child(worker: "subprocess.Popen[bytes]") -> int | None:
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = status.read_text().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                continue
            if int(fields[1]) == worker.pid:
                return int(status.parent.name)
        return None

    return _kill(folder, count, child)


def _kill(folder: Path, count: int, victim: object) -> Tally:
    place, tally, chance = Place(folder / "place"), Tally(), random.Random(1)
    expected, number = place.quiet(), 0
    while tally.injected < count:
        workspace, kills = folder / f"w{number}", 0
        number += 1
        place.submit(workspace)
        command = [
            sys.executable, "-m", "dissect.cli.main", "worker", "--workspace", str(workspace), "--lease", "2",
            "--pause", "0.1",
        ]  # fmt: skip
        for _ in range(min(2, count - tally.injected)):
            worker = subprocess.Popen(command, env=_ENVIRONMENT, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(1.5, 3.5))
            found = victim(worker)  # type: ignore[operator]
            if found is not None and worker.poll() is None:
                os.kill(found, signal.SIGKILL)
                kills += 1
            if found != worker.pid:
                worker.terminate()
            worker.wait()
        ended = run(command) == 0
        with sqlite3.connect(workspace / "dissect.sqlite") as db:
            attempts = db.execute("SELECT count(*) FROM events WHERE text LIKE '%: attempt %'").fetchone()[0]
            back = db.execute("SELECT count(*) FROM events WHERE text LIKE '%given back%'").fetchone()[0]
        tally.count(ended and rows(workspace) == expected and attempts <= 4 + kills + back, kills)
    return tally


def zombies(folder: Path, count: int) -> Tally:
    """Leases run out, others take over, the first ones try everything they could."""
    tally, clock = Tally(), test_ledger.Clock()
    with makers.open_store(folder) as store:
        ledger = Ledger(store, clock)
        test_ledger.submit(ledger, count=1)
        for _ in range(count):
            zombie = test_ledger.claim(ledger, "zombie")
            clock.now += 61
            other = test_ledger.claim(ledger, "other")
            late = [
                ledger.commit(zombie, "x"), ledger.renew(zombie, 60), ledger.fail(zombie, "x", 0),
                ledger.exclude(zombie, 1, "x"), ledger.give_back(zombie),
            ]  # fmt: skip
            tally.count(not any(late) and ledger.give_back(other))
    return tally


def claims(folder: Path, count: int) -> Tally:
    """Every shard is committed once, whoever races for it."""
    committed, wrong = test_ledger.claims(folder, max(1, count // 64), 8)
    return Tally(committed, committed - wrong)


def partials(folder: Path, count: int) -> Tally:
    """A damaged partial is noticed by its name and measured again, or refused; never believed."""
    place, tally, chance = Place(folder / "place"), Tally(), random.Random(2)
    workspace = folder / "w"
    assert run(place.command(workspace, "--shard", "0/2")) == 0
    path = next(workspace.glob("cache/*/shards/*.partial"))
    whole = path.read_bytes()
    from dissect.shards import partials as found
    from dissect.workspace import Workspace

    for number in range(count):
        data = bytearray(whole)
        if number % 2:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        else:
            del data[chance.randrange(len(data)) :]
        path.write_bytes(bytes(data))
        tally.count(0 not in found(Workspace.at(workspace), path.parent.parent.name, 2))
    path.write_bytes(whole)
    assert 0 in found(Workspace.at(workspace), path.parent.parent.name, 2)
    return tally


def disk(folder: Path, count: int) -> Tally:
    """No file may grow beyond so many bytes: the command ends with 5 and leaves no half report, or ends well; with
    room it then ends like a quiet run."""
    place, tally = Place(folder / "place"), Tally()
    expected = place.quiet()
    for number in range(count):
        workspace, limit = folder / f"w{number}", 1 << (8 + number * 14 // max(1, count - 1))

        def limited(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        code = run(place.command(workspace), preexec_fn=limited)
        half = (workspace / "reports" / "same").exists() and code != 0
        tally.count(
            code in (0, 1, 5) and not half and run(place.command(workspace)) == 0 and rows(workspace) == expected
        )
    return tally


def poison(folder: Path, count: int) -> Tally:
    """The image is found, set aside and named; the rest of the run ends."""
    tally = Tally()
    for number in range(count):
        place = Place(folder / f"place{number}", "poison", POISON)
        position = (number * 17 + 3) % 60
        path = place.folder / "data" / "images" / broden.open(place.folder / "data").rows[position].image
        Image.new("RGB", Image.open(path).size, (255, 255, 255)).save(path)
        workspace = folder / f"w{number}"
        place.submit(workspace, 2, ("inner.0",))
        run([sys.executable, "-m", "dissect.cli.main", "worker", "--workspace", str(workspace), "--pause", "0.1"])
        with sqlite3.connect(workspace / "dissect.sqlite") as db:
            found = db.execute("SELECT position FROM excluded").fetchall()
        tally.count(bool(rows(workspace)) and found == [(position,)])
    return tally
