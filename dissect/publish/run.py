"""The report of a run."""

import re
from collections.abc import Callable
from pathlib import Path

import broden
import reports
from dissect.errors import DissectError, SpecError
from dissect.publish.facts import honesty, provenance, unfoldered
from dissect.publish.layer import read_layer
from dissect.publish.pictures import DataImages, open_data
from dissect.publish.writing import writing
from dissect.store import RunRecord, Store
from dissect.store.records import FINISHED
from reports import pages


def publish_run(
    store: Store, run: str, out: Path | None = None, data: Path | str | broden.Dataset | None = None,
    max_bytes: int = reports.DEFAULT_BYTES, progress: Callable[[int], None] = lambda units: None,
) -> reports.Written:  # fmt: skip
    """Write the report of a finished run into `out` (default: the workspace's reports/<name or id>).

    `data` is the concept data, for pictures; default: where the run found it. Without it the cards say so.
    Raises SpecError (unknown or unfinished run, other data than the run's), DissectError (the folder cannot be written
    or the byte budget is too small), OSError on a full disk.
    """
    record = store.get_run(run)
    page, images = run_page(store, record, data)
    out = out if out is not None else report_folder(store, record)
    try:
        with writing(f"the report of {record.title}", out.parent):
            return reports.write_run(page, out, images, max_bytes, progress)
    except reports.ReportError as error:
        raise DissectError(str(error)) from error


def report_folder(store: Store, record: RunRecord) -> Path:
    """Where a run's report goes: reports/<name, or id where the name cannot be a folder's>."""
    name = record.name or record.id
    plain = re.fullmatch(r"[\w.,+@=~()\[\]-][\w .,+@=~()\[\]-]{0,119}", name) and name not in (".", "..")
    return store.workspace.report_folder(name if plain and name[0] not in "._" else record.id)


def run_page(
    store: Store, record: RunRecord, data: Path | str | broden.Dataset | None = None
) -> tuple[pages.RunPage, DataImages | None]:
    """The page objects of a run and its pictures (None where the concept data is not at hand)."""
    if record.state not in FINISHED:
        raise SpecError(f"run {record.title} is {record.state}: a report needs a finished run; repeat `dissect run`")
    known = [c for c in store.concepts(record.id) if c.name]
    kinds = [c.name for c in store.categories(record.id)]
    concepts = tuple(pages.Concept(c.number, c.name or "", kinds[c.category], int(c.area), c.images) for c in known)
    layers = [read_layer(store, record, layer, known) for layer in store.layers(record.id)]
    dataset, remark = open_data(record, data)
    names = {
        int(position): str(image)
        for layer in layers
        for position, image in zip(layer.exemplars.image_position.tolist(), layer.exemplars.image.tolist())
    }
    images = DataImages(dataset, names) if dataset is not None else None
    seen = record.data_fingerprint if images is not None else "no pictures"
    excluded = store.excluded(record.id)
    page = pages.RunPage(
        id=record.id,
        name=record.title,
        model=unfoldered(record.model or record.source),
        data=record.data_name,
        split=record.split,
        images=record.images,
        label_size=(record.label_h, record.label_w),
        quantile=record.quantile,
        cut=layers[0].stored.cut if layers else 0.04,
        convention=record.convention,
        categories=tuple(kinds),
        concepts=concepts,
        layers=tuple(
            pages.LayerPage(
                name=layer.stored.name, position=layer.stored.position,
                map_size=(layer.stored.map_h, layer.stored.map_w), units=layer.columns(), cards=layer.cards,
                digest=layer.digest(seen), activations=layer.stored.activations, top_k=layer.stored.top_k,
                unique_detectors=layer.stored.unique_detectors,
            )
            for layer in layers
        ),
        provenance=provenance(record, layers),
        honesty=tuple(honesty(record, layers, remark)),
        excluded=tuple(pages.Excluded(x.position, unfoldered(x.file), unfoldered(x.reason)) for x in excluded),
    )  # fmt: skip
    return page, images
