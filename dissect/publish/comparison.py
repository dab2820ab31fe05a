"""The page of a comparison."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import reports
from dissect import comparison
from dissect.errors import SpecError
from dissect.publish.facts import unfoldered
from dissect.publish.run import report_folder
from dissect.publish.workspace import publish_workspace
from dissect.publish.writing import writing
from dissect.store import RunRecord, Store
from reports import pages


def compare_page(store: Store, found: comparison.Comparison, title: str | None = None) -> pages.ComparePage:
    """The page objects of a comparison."""
    first = found.sides[0]
    by_number = {id(match.other) for match in found.matches if match.how == "number"}
    columns = tuple(
        pages.ComparedLayer(
            run=side.run.title, model=unfoldered(side.run.model or side.run.source), layer=side.layer.name,
            convention=side.run.convention, data=first.run.data_fingerprint, cut=side.layer.cut,
            units=side.layer.units, concept=side.label, iou=np.asarray(side.units.iou, np.float64),
            link=_report(store, side.run), same_units=id(side) in by_number,
            interval=side.intervals,
        )
        for side in found.sides
    )  # fmt: skip
    matches = tuple(
        pages.MatchedUnits(
            found.sides.index(m.other), m.unit, m.partner, m.correlation, m.agreement or 0.0, m.chance or 0.0
        )
        for m in found.matches
        if m.correlation is not None
    )
    concepts = tuple(pages.Concept(at, name, category, 0) for at, (name, category) in enumerate(found.concepts))
    runs = list(dict.fromkeys(column.run for column in columns))
    named = title or (_joined(runs) if len(runs) > 1 else f"{runs[0]}, layer by layer")
    return pages.ComparePage(named, concepts, found.categories, columns, matches, found.notes, "../index.html")


def _joined(names: Sequence[str]) -> str:
    """'one', 'one and two', 'one, two and three'."""
    return " and ".join([*filter(None, [", ".join(names[:-1])]), *names[-1:]])


def _report(store: Store, run: RunRecord) -> str | None:
    """Link from the page to the report of a run; None where there is none."""
    folder = report_folder(store, run)
    return f"../{folder.name}/index.html" if (folder / "index.html").is_file() else None


def publish_compare(store: Store, runs: Sequence[str], out: Path | None = None, match: str = "auto") -> Path:
    """Compare runs (see `comparison.compare`) and write the page; returns its index. Raises SpecError."""
    return publish_comparison(store, comparison.compare(store, runs, match), out)


def publish_comparison(store: Store, found: comparison.Comparison, out: Path | None = None) -> Path:
    """Write the page of a comparison; default folder: reports/compare-<hash>, and then the page of the workspace lists
    it. Returns its index page. Raises SpecError, OSError."""
    page = compare_page(store, found)
    key = hashlib.sha256("\n".join(f"{c.run}:{c.layer}" for c in page.columns).encode()).hexdigest()[:10]
    if out is not None:  # the reports of the runs are not beside it
        page = replace(page, columns=tuple(replace(column, link=None) for column in page.columns), home=None)
    folder = out or store.workspace.report_folder(f"compare-{key}")
    try:
        with writing("the comparison", folder.parent):
            index = reports.write_compare(page, folder)
    except reports.ReportError as error:
        raise SpecError(str(error)) from error
    if out is None:
        publish_workspace(store)
    return index
