"""One unit as a piece of HTML that needs no other file: for notebooks, and to put into pages of one's own."""

from dataclasses import dataclass
from pathlib import Path

import broden
from dissect.errors import SpecError
from dissect.publish.run import run_page
from dissect.store import Store
from reports.notebook import card_html


@dataclass(frozen=True)
class Card:
    """A unit's label with its integers and masked top images; everything in it is escaped."""

    run: str
    layer: str
    unit: int
    html: str

    def _repr_html_(self) -> str:
        return self.html


def card(store: Store, run: str, layer: str, unit: int, data: Path | str | broden.Dataset | None = None) -> Card:
    """The card of a unit; `data` as in `publish_run`. Raises SpecError for what the run does not have."""
    record = store.get_run(run)
    name = store.layer(record.id, layer).name
    page, images = run_page(store, record, data)
    chosen = next(one for one in page.layers if one.name == name)
    try:
        return Card(record.title, name, unit, card_html(page, chosen, unit, images))
    except IndexError as error:
        raise SpecError(str(error)) from error
