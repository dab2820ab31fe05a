"""What the pages and the queries of the largest layer cost: `python -m tests.bench.report [--units 65536]`.

build     units/s of a whole report, pictures from memory (the bar: 500 units/s), by the clock and by CPU time
query     milliseconds of the first questions to 65,536 x 1,197 (the bar: 50 ms), median of five;
          `python -m tests.dissect.store.benchmark` has the rest
browser   `pytest tests/browser/test_scale.py`: first cards under 1 s, every move under 100 ms, DOM under 3,000
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reports
from dissect.store import Store
from dissect.store.filters import UnitFilter
from dissect.store.unit_rows import UnitRows
from tests.dissect.store import makers
from tests.dissect.store.benchmark import CONCEPTS, large_layer
from tests.reports import synthetic


def build(units: int, folder: Path) -> None:
    known = synthetic.concepts(CONCEPTS)
    run = synthetic.run(synthetic.layer(units, known=known), known=known)
    begun, worked = time.perf_counter(), time.process_time()
    written = reports.write_run(run, folder / "report", synthetic.Pictures(40))
    spent, work = time.perf_counter() - begun, time.process_time() - worked
    print(
        f"build     {units / spent:8.0f} units/s   {units / work:.0f} by CPU time; {units} units, "
        f"{written.files} files, {written.size / 1e6:.1f} MB"
    )


def query(folder: Path) -> None:
    with makers.open_store(folder) as store:
        store.begin_run(makers.run_record())
        store.finish_run("a" * 64, [large_layer()], makers.concept_records(CONCEPTS), makers.category_records())
    with Store.open(folder, readonly=True) as store:

        def ask(**wanted: Any) -> UnitRows:
            return UnitRows(store, UnitFilter(**wanted))

        _median("top concepts of a unit", lambda: list(ask(units=(4242,), rank=None).rows(limit=20)))
        _median("top units of a concept", lambda: list(ask(concepts=("concept 77",), rank=None).rows(limit=200)))
        _median("first page of 100 pairs", lambda: ask(rank=None).page(100))


def _median(name: str, work: Callable[[], Any]) -> None:
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - begun))
    print(f"query     {statistics.median(taken):8.1f} ms        {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=65_536, help="units of the report that is built")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        query(Path(folder) / "workspace")
        build(options.units, Path(folder))


if __name__ == "__main__":
    main()
