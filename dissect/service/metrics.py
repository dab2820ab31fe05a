"""Counts for Prometheus, as text that a node exporter's textfile collector reads."""

import os

from dissect.store.ledger import Ledger
from dissect.workspace import Workspace


def metrics_text(ledger: Ledger) -> str:
    """Jobs and shards by state."""
    lines = []
    counts = ledger.counts()
    for kind in ("job", "shard"):
        lines += [f"# HELP dissect_{kind}s Number of {kind}s by state.", f"# TYPE dissect_{kind}s gauge"]
        lines += [
            f'dissect_{kind}s{{state="{name.removeprefix(f"{kind}_")}"}} {count}'
            for name, count in sorted(counts.items())
            if name.startswith(f"{kind}_")
        ]
    return "\n".join(lines) + "\n"


def write_metrics(workspace: Workspace, ledger: Ledger) -> None:
    """Put metrics.prom into the workspace, whole or not at all."""
    path = workspace.root / "metrics.prom"
    aside = path.with_name(f".metrics.{os.getpid()}.tmp")
    try:
        aside.write_text(metrics_text(ledger))
        aside.replace(path)
    except OSError:  # a full disk must not cost a shard
        aside.unlink(missing_ok=True)
