"""Writes the database that stands for the released schema: `python -m tests.dissect.store.make_asset`.

Run it once per schema version, before the version after it is begun, and keep the file: tests upgrade and query every
one of them for ever. It refuses to overwrite. A dump in SQL is kept, not the binary file: it can be reviewed.
"""

import sqlite3
import sys
import tempfile
from pathlib import Path

from dissect.store.migrate import LATEST
from tests.dissect.store import makers

FOLDER = Path(__file__).parent / "data"


def main() -> int:
    target = FOLDER / f"schema-{LATEST}.sql"
    if target.exists():
        print(f"{target.name} exists: an old database is never rewritten", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        with makers.open_store(folder) as store:
            makers.save(store, makers.run_record("1" * 64, "old"), units=6, concepts=12, layers=("conv", "fc"))
            store.begin_run(makers.run_record("2" * 64))
            store.fail_run("2" * 64, "power cut")
        connection = sqlite3.connect(Path(folder) / "dissect.sqlite")
        target.write_text("\n".join(connection.iterdump()) + "\n", encoding="utf-8")
        connection.close()
    print(target.name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
