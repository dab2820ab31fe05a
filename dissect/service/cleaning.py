"""What can be thrown away: shards and half-done work of runs that have ended, caches of runs that are gone, and files
that a killed process was writing."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from dissect.store import Store
from dissect.store.ledger import OPEN, Ledger

STALE_SECONDS = 3600.0
"""Nobody is still writing what has not changed for so long, on whichever machine."""
_ASIDE = (".metrics.*.tmp", "cache/**/*.tmp", "reports/.*")


def rubbish(store: Store, ledger: Ledger) -> Iterator[Path]:
    """Folders in the cache that no run, job or resumed work needs."""
    runs = {run.id: run.state for run in store.runs()}
    working = {job.run_id for job in ledger.jobs() if job.state in OPEN}
    root = store.workspace.root
    yield from (path for pattern in _ASIDE for path in sorted(root.glob(pattern)) if _left(path))
    for folder in sorted((root / "cache").glob("*")):
        name = folder.name
        if not folder.is_dir() or len(name) != 16 or name in working:
            continue
        if name not in runs:
            if not (folder / "shards").exists():  # shards of an array job that is still to be merged
                yield folder
        elif runs[name] in ("finished", "imported"):
            yield from sorted(path for path in folder.glob("unfinished-*"))
            yield from sorted(path for path in folder.glob("shards"))


def _left(path: Path) -> bool:
    newest = max((found.stat().st_mtime for found in (path, *path.rglob("*")) if found.exists()), default=0.0)
    return time.time() - newest > STALE_SECONDS


def size_of(path: Path) -> int:
    """Bytes in a file or folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
