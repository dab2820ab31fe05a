"""The families of faults: what is done, how often at scale 1, and by which function."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.torture import calls, far, files, inputs, kills, laws, races, soak
from tests.torture.place import Tally


@dataclass(frozen=True)
class Family:
    """A kind of fault; `inject` takes an empty folder and how many: `count` in the campaign, `fixed` in every test run
    (0 where other tests do the same)."""

    title: str
    count: int
    fixed: int
    inject: Callable[[Path, int], Tally]


FAMILIES: dict[str, Family] = {
    "kill-run": Family("SIGKILL of `dissect run` at a random moment", 400, 4, kills.kill_run),
    "kill-worker": Family("SIGKILL of a worker at a random moment", 200, 1, kills.kill_worker),
    "kill-child": Family("SIGKILL of the process that measures a shard", 60, 1, kills.kill_child),
    "poison": Family("an image that ends the process that reads it", 5, 0, kills.poison),
    "crash-run": Family("the process ends before or inside a call that changes a file", 800, 5, calls.crash_run),
    "crash-shards": Family("the same in two shards and their merge", 800, 3, calls.crash_shards),
    "crash-ledger": Family("the same in the ledger", 800, 20, calls.crash_ledger),
    "crash-run-pg": Family("as crash-run, on PostgreSQL", 800, 3, calls.crash_run_postgres),
    "crash-ledger-pg": Family("as crash-ledger, on PostgreSQL", 800, 5, calls.crash_ledger_postgres),
    "servers": Family("a PostgreSQL server that crashes under two workers", 50, 0, far.servers),
    "cuts": Family("a cut link between a worker and the database", 20, 0, far.cuts),
    "ray-nodes": Family("SIGKILL of a node of a Ray cluster", 20, 0, far.ray_nodes),
    "ray-drivers": Family("SIGKILL of the command that drives a Ray cluster", 20, 0, far.ray_drivers),
    "ray-heads": Family("SIGKILL of the head of a Ray cluster", 20, 0, far.ray_heads),
    "fail-run": Family("such a call fails with EIO, ENOSPC or EINTR", 400, 5, calls.failing_run),
    "disk": Family("a file system that is full, from empty to nearly enough", 20, 2, files.disk),
    "partials": Family("a bit flipped in a partial, or a part cut off", 1000, 40, files.partials),
    "database": Family("a bit flipped in the database, or a part cut off", 400, 6, files.database),
    "tails": Family("tails of random maps against a sort", 10_000, 100, laws.tails),
    "merges": Family("scans and counts merged in two random orders", 10_000, 100, laws.merges),
    "counts": Family("overlap counts against the plain definition", 10_000, 100, laws.counts),
    "claims": Family("claims of shards by 8 writers at once", 10_048, 0, races.claims),
    "zombies": Family("a process stopped past its lease that comes back and commits", 100, 5, races.zombies),
    "stopped": Family("a worker stopped past its lease, and let go on", 10, 0, races.stopped_worker),
    "clocks": Family("histories under a clock that jumps by days", 100, 3, races.clocks),
    "storms": Family("locks of the database by others, up to 3 s", 200, 0, races.storms),
    "queue": Family("jobs waiting in a queue", 2000, 50, races.queue),
    "checkpoints": Family("hostile checkpoints", 1000, 0, inputs.checkpoints),
    "pickles": Family("mutated state dicts", 10_000, 0, inputs.pickles),
    "safetensors": Family("mutated safetensors", 10_000, 0, inputs.safetensors),
    "pictures": Family("damaged pictures and label planes, beside odd ones", 2000, 0, inputs.pictures),
    "formats": Family("files of kinds that are not on the list", 1000, 0, inputs.formats),
    "paths": Family("paths that lead out of a data set", 320, 0, inputs.paths),
    "names": Family("names of runs from a stranger", 1000, 120, inputs.names),
    "specs": Family("mutated specs", 2000, 200, inputs.specs),
    "requests": Family("hostile HTTP requests", 5000, 0, inputs.requests),
    "soak": Family("small jobs in a row through one worker", 1000, 5, soak.soak),
}
