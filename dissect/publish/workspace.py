"""The page of a workspace: all runs, comparisons, and where each concept is detected."""

import html
import re
import time
from pathlib import Path

import numpy as np

import reports
from dissect.publish.facts import unfoldered
from dissect.publish.run import report_folder
from dissect.store import Store, attributions, syntheses
from dissect.store.ledger import JobRecord, Ledger
from dissect.store.records import FINISHED
from reports import pages


def publish_workspace(store: Store, title: str = "Dissections") -> Path:
    """Write reports/index.html with all runs of the workspace, and a page for each concept that a run detects."""
    folder = store.workspace.root / "reports"
    listed = []
    found: dict[tuple[str, str], list[pages.Sighting]] = {}
    for record in store.runs():
        own = report_folder(store, record).name
        there = (folder / own / "index.html").is_file()
        layers = store.layers(record.id)
        listed.append(
            pages.ListedRun(
                id=record.id, name=record.title, model=unfoldered(record.model or record.source),
                data=record.data_name,
                state=record.state, convention=record.convention, images=record.images,
                layers=tuple(pages.ListedLayer(x.name, x.units, x.detectors, x.unique_concepts) for x in layers),
                link=f"{own}/index.html" if there else None, note=unfoldered(record.error or ""),
            )
        )  # fmt: skip
        if record.state not in FINISHED:
            continue
        kinds = {c.index: c.name for c in store.categories(record.id)}
        concepts = {c.number: c for c in store.concepts(record.id) if c.name}
        for layer in layers:
            units = store.units(layer)
            chosen = np.flatnonzero((units.iou > layer.cut) & (units.label > 0))
            for number in np.unique(units.label[chosen]).tolist():
                mine = chosen[units.label[chosen] == number]
                best = int(mine[np.argmax(units.iou[mine])])
                concept = concepts[number]
                base = reports.layer_folder(layer.position, layer.name)
                link = f"{own}/{base}/index.html#concept={number}" if there else None
                found.setdefault((concept.name or "", kinds[concept.category]), []).append(
                    pages.Sighting(record.title, layer.name, len(mine), float(units.iou[best]), best, link)
                )
    sightings = tuple(
        pages.WorkspaceConcept(name, kind, tuple(sorted(rows, key=lambda s: (-s.best_iou, s.run, s.layer))))
        for (name, kind), rows in sorted(found.items())
    )
    comparisons = tuple(
        pages.Listed(_title(path), f"{path.parent.name}/index.html")
        for kind in ("compare", "curve")
        for path in sorted(folder.glob(f"{kind}-*/index.html"))
    )
    links = {run.id: run.link for run in listed}
    jobs = tuple(
        pages.JobRow(
            str(job.id), _request(job), job.state, job.done, job.shards, job.attempts, job.held, links.get(job.run_id),
            unfoldered(job.error or ""),
        )
        for job in reversed(Ledger(store, time.time).jobs())
    )  # fmt: skip
    shown = folder / "_gallery" / "index.html"
    made = reports.plural(len(syntheses.every(store)), "synthesis", "syntheses")
    gallery = pages.Listed("Synthesised pictures", "_gallery/index.html", made)
    page = pages.WorkspacePage(
        title, tuple(listed), sightings, comparisons, gallery if shown.is_file() else None, jobs,
        _attributions(store, folder),
    )  # fmt: skip
    return reports.write_workspace(page, folder)


def _attributions(store: Store, folder: Path) -> pages.Listed | None:
    """The link to the page of attributions, where there is one."""
    if not (folder / "_attributions" / "index.html").is_file():
        return None
    maps, tables = len(attributions.every(store)), len(attributions.every_judgement(store))
    note = f"{reports.plural(maps, 'map')}, {reports.plural(tables, 'judging table')}"
    return pages.Listed("Where decisions came from", "_attributions/index.html", note)


def _request(job: JobRecord) -> str:
    """What a job dissects, in words."""
    asked = job.request
    words = f"{asked['model']} {', '.join(asked['layers'])} on {Path(asked['data']).name}"
    return f"{job.name}: {unfoldered(words)}" if job.name != job.run_id else unfoldered(words)


def _title(page: Path) -> str:
    """The title of a page that was written earlier."""
    found = re.search(r"<title>(.*?)</title>", page.read_text(encoding="utf-8"), re.DOTALL)
    return html.unescape(found[1]) if found else page.parent.name
