"""A workspace with pages for tests of the server."""

from pathlib import Path

from dissect import publish
from tests.dissect.query.conftest import NAMES
from tests.dissect.store import makers


def made(place: Path) -> Path:
    """Three runs, two of them finished and with pages, one comparison."""
    with makers.open_store(place) as store:
        layers = ("conv", "fc")
        makers.save(store, makers.run_record("a" * 64, "first"), units=240, concepts=16, layers=layers, names=NAMES)
        makers.save(store, makers.run_record("b" * 64, "second"), units=40, concepts=16, names=NAMES, seed=7)
        store.begin_run(makers.run_record("c" * 64, "unfinished"))
        for run in ("first", "second"):
            publish.publish_run(store, run)
        publish.publish_compare(store, ["first:conv", "second"])
    return place
