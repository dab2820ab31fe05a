"""`make bench`: what a dissection costs, as ratios of things that are measured side by side in one run.

    python -m tests.bench [BENCH ...] [--data DIR] [--weights FOLDER] [--json FILE]

    whole      a whole process, start to database, against the plain script that a user would write, over the same files
    overhead   the loop of a dissection against a channels-last, truncated forward loop that decodes the same files
    kernels    each kernel against the slow reference and against the dense formulation
    scaling    cost per image over images, units, concepts and map size
    memory     peak memory and disk of late, early and very wide layers, against the budgets that they were given
    ledger     a run through the batch service against the same run in one process

Without --data a synthetic set of 600 images is made. Without names, all are run.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dissect.process import tune

tune()  # before torch is imported: what the commands do

import broden
from tests.bench import kernels, ledger, memory, overhead, scaling, whole
from tests.bench.table import Table

BENCHES = {
    "whole": whole.run,
    "overhead": overhead.run,
    "kernels": kernels.run,
    "scaling": scaling.run,
    "memory": memory.run,
    "ledger": ledger.run,
}


@contextmanager
def _data(path: str | None) -> Iterator[Path]:
    if path:
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield broden.synth(Path(folder) / "synthetic", images=600, size=224).root


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=f"any of {', '.join(BENCHES)}")
    parser.add_argument("--data", metavar="DIR", help="a Broden-format folder of files (not a pack: Pillow reads it)")
    parser.add_argument("--weights", metavar="FOLDER", help="folder with NAME_imagenet.pth of the networks")
    parser.add_argument("--model", action="append", choices=whole.CASES, help="only these networks; repeat for several")
    parser.add_argument("--dtype", action="append", choices=("float32", "bfloat16"), help="default: both")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="the first N images only")
    parser.add_argument("--units", type=int, action="append", metavar="U", help="memory: only layers of so many units")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="ledger: the images so often, for a long run")
    parser.add_argument("--shards", type=int, metavar="N", help="ledger: in so many (default: as `submit` does)")
    parser.add_argument("--scratch", metavar="DIR", help="ledger: where its data and workspaces go")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    unknown = set(options.benches) - BENCHES.keys()
    if unknown:
        parser.error(f"no bench {sorted(unknown)[0]!r}: expected any of {', '.join(BENCHES)}")
    options.model = options.model or list(whole.CASES)
    options.dtype = options.dtype or ["float32", "bfloat16"]
    tables: dict[str, Table] = {}
    with _data(options.data) as data:
        for name in options.benches or BENCHES:
            tables[name] = BENCHES[name](data, options)
    if options.json:
        Path(options.json).write_text(json.dumps({name: table.rows for name, table in tables.items()}, indent=1))


if __name__ == "__main__":
    main()
