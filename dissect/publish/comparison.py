"""Comparisons of runs."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import reports
from dissect.errors import SpecError
from dissect.publish.facts import unfoldered
from dissect.publish.run import report_folder
from dissect.publish.workspace import publish_workspace
from dissect.store import RunRecord, Store, StoredLayer
from dissect.store.records import FINISHED
from reports import pages


def compare_page(store: Store, runs: Sequence[str], title: str | None = None) -> pages.ComparePage:
    """The page objects of a comparison. Each of `runs` is a run, or run:layer; the layer is needed where there are
    several. Raises SpecError (unknown, unfinished, ambiguous)."""
    columns: list[pages.ComparedLayer] = []
    concepts: tuple[pages.Concept, ...] = ()
    categories: tuple[str, ...] = ()
    first: tuple[RunRecord, StoredLayer] | None = None
    for text in runs:
        record, stored = _one_layer(store, text)
        if first is None:
            first = (record, stored)
            categories = tuple(c.name for c in store.categories(record.id))
            concepts = tuple(
                pages.Concept(c.number, c.name, categories[c.category], int(c.area), c.images)
                for c in store.concepts(record.id)
                if c.name
            )
        units = store.units(stored)
        same = (record.source, stored.name, stored.units) == (first[0].source, first[1].name, first[1].units)
        columns.append(
            pages.ComparedLayer(
                run=record.title, model=unfoldered(record.model or record.source), layer=stored.name,
                convention=record.convention, data=record.data_fingerprint, cut=stored.cut, units=stored.units,
                concept=np.where(units.label > 0, units.label, -1).astype(np.int64),
                iou=np.asarray(units.iou, np.float64), link=f"../{report_folder(store, record).name}/index.html",
                same_units=same and len(columns) > 0,
            )
        )  # fmt: skip
    return pages.ComparePage(title or " and ".join(c.run for c in columns), concepts, categories, tuple(columns))


def _one_layer(store: Store, text: str) -> tuple[RunRecord, StoredLayer]:
    try:
        record, layer = store.get_run(text), None
    except SpecError:
        name, colon, layer = text.rpartition(":")
        if not colon:
            raise
        record = store.get_run(name)
    if record.state not in FINISHED:
        raise SpecError(f"run {record.title} is {record.state}: only finished runs can be compared")
    if layer is not None:
        return record, store.layer(record.id, layer)
    found = store.layers(record.id)
    if len(found) != 1:
        raise SpecError(
            f"run {record.title} has {len(found)} layers ({', '.join(x.name for x in found)}): "
            f"say which, as {record.title}:LAYER"
        )
    return record, found[0]


def publish_compare(store: Store, runs: Sequence[str], out: Path | None = None) -> Path:
    """Write the comparison of two to four runs; default folder: reports/compare-<hash>, and then the page of the
    workspace lists it. Returns its index page.

    Raises SpecError (unknown runs, mixed conventions or concept data).
    """
    page = compare_page(store, runs)
    key = hashlib.sha256("\n".join(f"{c.run}:{c.layer}" for c in page.columns).encode()).hexdigest()[:10]
    if out is not None:  # the reports of the runs are not beside it
        page = replace(page, columns=tuple(replace(column, link=None) for column in page.columns))
    try:
        index = reports.write_compare(page, out or store.workspace.report_folder(f"compare-{key}"))
    except reports.ReportError as error:
        raise SpecError(str(error)) from error
    if out is None:
        publish_workspace(store)
    return index
