"""The families of faults: what is done, how often at scale 1, and by which function."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.torture import calls, kills
from tests.torture.place import Tally


@dataclass(frozen=True)
class Family:
    """A kind of fault; `inject` takes an empty folder and how many."""

    title: str
    count: int
    inject: Callable[[Path, int], Tally]


FAMILIES: dict[str, Family] = {
    "kill-run": Family("SIGKILL of `dissect run` at a random moment", 400, kills.kill_run),
    "kill-worker": Family("SIGKILL of a worker at a random moment", 200, kills.kill_worker),
    "kill-child": Family("SIGKILL of the process that measures a shard", 60, kills.kill_child),
    "poison": Family("an image that ends the process that reads it", 5, kills.poison),
    "crash-run": Family(
        "the process ends before or inside a call that changes a file, whole runs", 800, calls.crash_run
    ),
    "crash-shards": Family("the same in two shards and their merge", 400, calls.crash_shards),
    "crash-ledger": Family("the same in the ledger", 600, calls.crash_ledger),
    "fail-run": Family("such a call fails: EIO, ENOSPC, EINTR", 400, calls.failing_run),
}
