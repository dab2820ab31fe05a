"""/metrics: what the database and this process hold, as Prometheus text.

To add figures: write a function Store -> samples and name it in SOURCES.
"""

from collections.abc import Callable, Iterable, Iterator
from threading import Lock

from dissect.process import peak_rss
from dissect.prometheus import Sample
from dissect.service.metrics import ledger
from dissect.store import Store
from dissect.store.other_rows import RUN_COLUMNS, run_rows


def runs(store: Store) -> Iterator[Sample]:
    """Runs by state; units and detectors of all finished ones."""
    rows = run_rows(store)
    state, units, detectors = (RUN_COLUMNS.index(name) for name in ("state", "units", "detectors"))
    for name in ("running", "finished", "failed", "imported"):
        count = sum(row[state] == name for row in rows)
        yield Sample("dissect_runs", "gauge", "Runs in the database by state.", count, {"state": name})
    yield Sample("dissect_units", "gauge", "Units of all runs.", sum(row[units] for row in rows))
    yield Sample("dissect_detectors", "gauge", "Detectors of all runs.", sum(row[detectors] for row in rows))


def database(store: Store) -> Iterator[Sample]:
    """Size of a SQLite file."""
    file = store.workspace.database
    if file is not None and file.is_file():
        yield Sample("dissect_database_bytes", "gauge", "Size of the database file.", file.stat().st_size)


def process(_: Store) -> Iterator[Sample]:
    """Memory of this server."""
    yield Sample("dissect_peak_rss_bytes", "gauge", "Largest resident memory of this server.", peak_rss())


SOURCES: tuple[Callable[[Store], Iterable[Sample]], ...] = (runs, database, ledger, process)


class Traffic:
    """Requests and the seconds that they took, by class of status; safe between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._seen: dict[str, tuple[int, float]] = {}

    def count(self, status: int, seconds: float) -> None:
        """Note one answered request."""
        key = f"{status // 100}xx"
        with self._lock:
            number, spent = self._seen.get(key, (0, 0.0))
            self._seen[key] = (number + 1, spent + seconds)

    def samples(self) -> Iterator[Sample]:
        """The counts as samples."""
        with self._lock:
            seen = sorted(self._seen.items())
        for status, (number, _) in seen:
            yield Sample("dissect_http_requests_total", "counter", "Requests answered.", number, {"status": status})
        for status, (_, spent) in seen:
            name, about = "dissect_http_seconds_total", "Seconds until answers began."
            yield Sample(name, "counter", about, spent, {"status": status})
