"""Every call that changes a file or tells the database's server something, one after the other: the process ends before
it or in the middle of it, or it fails.

    python -m tests.torture.calls --list          the crash points of a run, by name

`calls.c` is preloaded for that. What is left after one call is what is found before the next, so "after" is no case of
its own. The idea is SQLite's (its documents on testing, sections 3.2 and 3.3: I/O errors and crashes at every point).
"""

import argparse
import ctypes
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from _pytest.outcomes import Skipped

from dissect.store import Store
from dissect.store.ledger import Ledger
from dissect.workspace import Workspace
from tests.torture.bases import Base, base
from tests.torture.place import Place, Tally, begin, end, remains, run

BEFORE, HALF = -1, -3
ERRORS = (errno.EIO, errno.ENOSPC, errno.EINTR)
_SOURCE = Path(__file__).with_name("calls.c")
_NUMBERS = re.compile(r"[0-9a-f]{16,}|\d+")
Steps = list[list[str]]


def crash_run(folder: Path, count: int) -> Tally:
    """`dissect run` ends at a call; the same command again goes on."""
    return _preloaded("crash", "run", folder, count)


def crash_shards(folder: Path, count: int) -> Tally:
    """Two shards and their merge, one of which ends at a call; then all three again."""
    return _preloaded("crash", "shards", folder, count)


def crash_ledger(folder: Path, count: int) -> Tally:
    """A job from queue to end, ended at a call: what was acknowledged holds, and the job can be brought to its end."""
    return _preloaded("crash", "ledger", folder, count)


def crash_run_postgres(folder: Path, count: int) -> Tally:
    """As `crash_run`, with the rows on a PostgreSQL server; what is said to it counts as a call."""
    return _preloaded("crash", "run", folder, count, "--postgres")


def crash_ledger_postgres(folder: Path, count: int) -> Tally:
    return _preloaded("crash", "ledger", folder, count, "--postgres")


def failing_run(folder: Path, count: int) -> Tally:
    """A call fails with EIO, ENOSPC or EINTR: the run ends with a code that says so, or well; then again."""
    return _preloaded("fail", "run", folder, count)


def _preloaded(how: str, what: str, folder: Path, count: int, *more: str) -> Tally:
    library = folder / "calls.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True)
    command = [sys.executable, "-m", "tests.torture.calls", how, what, str(folder.resolve()), str(count), *more]
    environment = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Tally(**json.loads(done.stdout.splitlines()[-1]))


def arm(root: Path, number: int, action: int, log: int = -1) -> None:
    """In the process that is to suffer: its call `number` below `root`."""
    ctypes.CDLL(None).calls_arm(os.fsencode(root), number, action, log)


def points(root: Path, start: Callable[[Callable[[], object]], int]) -> list[str]:
    """Names of all calls that a process makes below `root`."""
    with tempfile.TemporaryFile() as log:
        end(start(lambda: arm(root, 0, 0, log.fileno())))
        log.seek(0)
        return log.read().decode(errors="replace").splitlines()


def cases(names: list[str], how: str) -> Iterator[tuple[int, int]]:
    """(which call, what happens to it), each."""
    for number, name in enumerate(names, 1):
        if how == "fail":
            yield number, ERRORS[number % len(ERRORS)]
        else:
            yield number, BEFORE
            if name.startswith(("write ", "pwrite ", "send ")):
                yield number, HALF


def spread(found: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """At most `count` of them, evenly."""
    return found if len(found) <= count else [found[i * len(found) // count] for i in range(count)]


def _commands(place: Place, what: str, workspace: Path, more: list[str]) -> Steps:
    if what == "run":
        return [place.command(workspace, *more)]
    shards = [place.command(workspace, "--shard", f"{i}/2", *more) for i in range(2)]
    return [*shards, ["merge", "--workspace", str(workspace), *more]]


def suffer(folder: Path, rows: Base, what: str, how: str, count: int) -> Tally:
    """Runs of which one call is struck, each followed by one in peace."""
    place, tally = Place(folder / "place"), Tally()
    named = set[str]()

    def commands(workspace: Path) -> tuple[Steps, list[str]]:
        url = rows.url(workspace)
        more = ["--db", url] if url else []
        return _commands(place, what, workspace, more), more

    quiet = folder / "quiet"
    assert run(_commands(place, "run", quiet, commands(quiet)[1])[0]) == 0
    expected, files = rows.result(quiet), remains(quiet, *commands(quiet)[1])
    plan: list[tuple[int, int, int]] = []
    seen = folder / "seen"
    for step, command in enumerate(commands(seen)[0]):
        names = points(seen, lambda before, command=command: begin(command, before))  # type: ignore[misc]
        named |= {_NUMBERS.sub("#", name) for name in names}
        plan += [(step, *case) for case in cases(names, how)]
    chosen = [plan[i] for i, _ in spread([(i, 0) for i in range(len(plan))], count)]
    for number, (struck, call, action) in enumerate(chosen):
        workspace, sound = folder / f"w{number}", True
        steps, more = commands(workspace)
        for step, command in enumerate(steps):
            if step < struck:
                sound &= run(command) == 0
            elif step == struck:
                code = run(command, lambda *_, root=workspace, call=call, action=action: arm(root, call, action))  # type: ignore[misc]
                sound &= code == -9 if how == "crash" else code in (0, 1, 2, 5, 75)
                sound &= code != 0 or what != "run" or rows.result(workspace) == expected
        sound &= all(run(command) == 0 for command in steps)
        sound &= rows.result(workspace) == expected and remains(workspace, *more) == files
        if not sound:
            print(f"LOST: call {call} of step {struck}, action {action}", file=sys.stderr, flush=True)
        tally.count(sound)
        rows.forget(workspace)
        shutil.rmtree(workspace)
    tally.seen = f"{len(plan):,} cases at {len(named)} named points"
    return tally


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _script(workspace: Workspace, said: int) -> None:
    """A job with all that can happen to it; each step is acknowledged once it is written."""
    clock = _Clock()

    def done(word: str) -> None:
        os.write(said, f"{word}\n".encode())

    with Store.open(workspace) as store:
        ledger = Ledger(store, clock)
        ledger.submit("r", "r", {}, 3, 10, 0, "1")
        done("submitted")
        for number in range(3):
            lease = ledger.claim("a", 60, "1")
            assert lease is not None
            done(f"claimed {lease.number} {lease.token}")
            ledger.renew(lease, 60)
            if number == 1:
                ledger.fail(lease, "boom", 0)
                done(f"failed {lease.number}")
            else:
                assert ledger.commit(lease, f"{lease.number}.partial")
                done(f"committed {lease.number}")
            ledger.note(1, "a", f"event {number}")
            done(f"noted event {number}")
        lease = ledger.claim("a", 60, "1")
        assert lease is not None
        ledger.exclude(lease, 7, "bad")
        done("excluded 7")


def ledger_crashes(folder: Path, rows: Base, count: int) -> Tally:
    tally = Tally()

    def start(root: Path, said: int, before: Callable[[], object]) -> int:
        workspace = Workspace.at(root, rows.url(root))
        pid = os.fork()
        if pid == 0:
            try:
                before()
                _script(workspace, said)
                os._exit(0)
            finally:
                os._exit(1)
        return pid

    with open(os.devnull, "w") as nothing:
        names = points(folder / "seen", lambda before: start(folder / "seen", nothing.fileno(), before))
    every = list(cases(names, "crash"))
    for number, (call, action) in enumerate(spread(every, count)):
        root = folder / f"w{number}"
        out, said = os.pipe()
        code = end(start(root, said, lambda call=call, action=action, root=root: arm(root, call, action)))  # type: ignore[misc]
        os.close(said)
        with open(out) as file:
            words = file.read().splitlines()
        sound = code == -9 and _holds(Workspace.at(root, rows.url(root)), words)
        if not sound:
            print(f"LOST: ledger call {call}, action {action}, after {words[-1:]}", file=sys.stderr, flush=True)
        tally.count(sound)
        rows.forget(root)
        shutil.rmtree(root, ignore_errors=True)
    tally.seen = f"{len(every):,} cases at {len({_NUMBERS.sub('#', name) for name in names})} named points"
    return tally


def _holds(workspace: Workspace, words: list[str]) -> bool:
    """Whether the ledger holds all that was acknowledged, and leads the job to its end."""
    clock = _Clock()
    clock.now = 1000
    with Store.open(workspace) as store, store.reading() as connection:
        sound = not workspace.database or connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        jobs = connection.exec_driver_sql("SELECT count(*) FROM jobs").scalar()
        shards = connection.exec_driver_sql("SELECT number, state, token, partial FROM shards ORDER BY number").all()
        noted = {row[0] for row in connection.exec_driver_sql("SELECT text FROM events")}
        aside = connection.exec_driver_sql("SELECT count(*) FROM set_aside").scalar()
    if "submitted" in words:
        sound &= jobs == 1
    sound &= len(shards) in ((4,) if jobs else (0,))
    sound &= all((state == "done") == (partial is not None) for _, state, _, partial in shards)
    for word in words:
        kind, *rest = word.split()
        if kind == "claimed":
            sound &= shards[int(rest[0])][2] >= int(rest[1])
        elif kind == "committed":
            sound &= shards[int(rest[0])][1] == "done"
        elif kind == "noted":
            sound &= " ".join(rest) in noted
        elif kind == "excluded":
            sound &= aside == 1
    with Store.open(workspace) as store:
        ledger = Ledger(store, clock)
        ledger.submit("r", "r", {}, 3, 10, 0, "1")
        while (lease := ledger.claim("b", 60, "1")) is not None:
            sound &= ledger.commit(lease, f"{lease.number}.partial")
        return sound and [job.state for job in ledger.jobs()] == ["finished"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="name the crash points of a run")
    parser.add_argument("how", nargs="?", choices=("crash", "fail"))
    parser.add_argument("what", nargs="?", choices=("run", "shards", "ledger"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("count", nargs="?", type=int)
    parser.add_argument("--postgres", action="store_true", help="rows on a throw-away server")
    options = parser.parse_args()
    if options.list:
        if not hasattr(ctypes.CDLL(None), "calls_arm"):
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run(
                    ["cc", "-O1", "-shared", "-fPIC", "-o", f"{folder}/calls.so", _SOURCE, "-ldl"], check=True
                )
                again = [sys.executable, "-m", "tests.torture.calls", "--list"]
                subprocess.run(again, env=os.environ | {"LD_PRELOAD": f"{folder}/calls.so"}, check=True)
            return
        with tempfile.TemporaryDirectory() as folder:
            place, root = Place(Path(folder).resolve() / "place"), Path(folder).resolve() / "w"
            names = points(root, lambda before: begin(place.command(root), before))
        for name, times in Counter(_NUMBERS.sub("#", name) for name in names).items():
            print(f"{times:5d}  {name}")
        return
    os.environ.pop("LD_PRELOAD", None)  # it is in this process and those forked from it; a server needs none
    try:
        with base(options.postgres) as rows:
            if options.what == "ledger":
                tally = ledger_crashes(options.folder, rows, options.count)
            else:
                tally = suffer(options.folder, rows, options.what, options.how, options.count)
    except Skipped as reason:
        tally = Tally(seen=f"not done: {reason}")
    print(json.dumps(asdict(tally)))


if __name__ == "__main__":
    main()
