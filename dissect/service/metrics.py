"""Figures of the batch service, for /metrics and for a file that a node exporter's textfile collector reads."""

import os
import time
from collections.abc import Iterator

from dissect.prometheus import Sample, exposition
from dissect.store import Store
from dissect.store.ledger import Ledger


def ledger(store: Store) -> Iterator[Sample]:
    """Jobs and shards by state, what was tried again, what was set aside, and leases that ran out."""
    found = Ledger(store, time.time)
    for name, count in sorted(found.counts().items()):
        kind, state = name.split("_", 1)
        yield Sample(f"dissect_{kind}s", "gauge", f"Number of {kind}s by state.", count, {"state": state})
    totals = found.totals()
    yield Sample("dissect_shard_leases", "gauge", "Times that shards of known jobs were begun.", totals.leases)
    yield Sample("dissect_images_set_aside", "gauge", "Images that ended the process.", totals.set_aside)
    yield Sample("dissect_leases_lapsed", "gauge", "Shards whose worker gave no sign of life.", totals.lapsed)


def write_metrics(store: Store) -> None:
    """Put metrics.prom into the workspace, whole or not at all."""
    path = store.workspace.root / "metrics.prom"
    aside = path.with_name(f".metrics.{os.getpid()}.tmp")
    try:
        aside.write_text(exposition(ledger(store)))
        aside.replace(path)
    except OSError:  # a full disk must not cost a shard
        aside.unlink(missing_ok=True)
