"""The page of a workspace's attributions and judging tables, from the database and the array files beside it."""

import json
import zipfile
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

import reports
from dissect.attribution import pictures
from dissect.attribution.judge.scores import MEANING
from dissect.attribution.judge.single import CHANCE
from dissect.errors import SpecError
from dissect.publish.facts import unfoldered
from dissect.publish.run import report_folder
from dissect.publish.workspace import publish_workspace
from dissect.store import Store, attributions
from dissect.store.attributions import AttributionRecord, CarrierRecord, JudgementRecord
from reports import attribution as pages
from reports.images import upsample
from reports.pages import Fact

BEST_CONCEPTS = 12  # sums by concept that are shown


def publish_attributions(store: Store, title: str = "Attributions") -> Path:
    """Write reports/_attributions/index.html of the workspace, newest decision first; the first time also the page of
    the workspace, which links to it."""
    folder = store.workspace.root / "reports"
    linked = (folder / pages.ASIDE / "index.html").is_file()
    records = attributions.every(store)
    newest = {_question(record): number for number, record in enumerate(records)}
    by_question = sorted(records, key=lambda record: -newest[_question(record)])
    decisions = tuple(_decision(store, list(group)) for _, group in groupby(by_question, key=_question))
    tables = tuple(_judgement(store, record) for record in reversed(attributions.every_judgement(store)))
    page = pages.AttributionsPage(title, decisions, tables)
    index = reports.write_attributions(page, folder)
    if not linked:
        publish_workspace(store)
    return index


def _question(record: AttributionRecord) -> tuple[str, ...]:
    """What must be equal for maps to answer one question."""
    return (record.model, record.weights_sha256 or "", record.image_sha256, record.target)


def _decision(store: Store, records: list[AttributionRecord]) -> pages.Decision:
    first = records[0]
    arrays = {record.id: _Arrays(attributions.arrays(store, record)) for record in records}
    maps, carriers, occluders = [], [], []
    for record in records:
        read = arrays[record.id]
        if record.method == "units":
            view = _carriers(store, record, read)
            carriers += [view] if view else []
        elif record.method == "occluder-sensitivity":
            occluders.append(_occluders(record, read))
        else:
            maps.append(_map(record, read))
    photo = pages.Overlay(first.image, lambda: arrays[first.id]["image"])
    scored = {name for record in records for name in record.measures}
    meanings = tuple(Fact(name, meaning) for name, meaning in MEANING.items() if name in scored)
    return pages.Decision(
        f"d{first.id[:10]}", first.image, first.target, unfoldered(first.model), first.score, photo, tuple(maps),
        tuple(carriers), tuple(occluders), meanings,
    )  # fmt: skip


class _Arrays:
    """Arrays of one file, read when asked for; None where the file, or the array, is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getitem__(self, name: str) -> np.ndarray | None:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                return np.asarray(file[name])
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            return None

    def over(self, name: str, part: Callable[[np.ndarray], np.ndarray] = lambda heat: heat) -> Any:
        """Reader of the map `name` over the image."""

        def read() -> np.ndarray | None:
            image, heat = self["image"], self[name]
            if image is None or heat is None or image.shape[:2] != heat.shape:
                return None
            return pictures.overlay(image, part(heat))

        return read


def _map(record: AttributionRecord, read: _Arrays) -> pages.MapView:
    heat = read["map"]
    overlays = [pages.Overlay(f"{record.method} over the image", read.over("map"))]
    if heat is not None and bool((heat < 0).any()):
        overlays += [
            pages.Overlay("speaks for it", read.over("map", lambda h: h.clip(0, None))),
            pages.Overlay("speaks against it", read.over("map", lambda h: h.clip(None, 0))),
        ]
    facts = [Fact(key, _told(value)) for key, value in record.parameters.items() if value is not None]
    facts += [Fact("note", note) for note in record.facts.get("notes", [])]
    facts += [Fact(key, _told(value)) for key, value in record.facts.items() if key != "notes" and value is not None]
    calls = (record.audit or {}).get("calls", [])
    if calls:
        facts.append(
            Fact("replaced calls", ", ".join(f"{c['layer'] or 'the network'} ({c['spelling']})" for c in calls))
        )
    facts.append(Fact("weights sha256", record.weights_sha256 or "none: random weights or unknown"))
    facts.append(Fact("attribution", record.id))
    return pages.MapView(record.method, tuple(overlays), _lead(record), _measures(record), tuple(facts))


def _lead(record: AttributionRecord) -> str:
    """The audit in one sentence."""
    kinds = (record.audit or {}).get("replaced", {})
    told = ", ".join(f"{reports.plural(count, f'{kind} call')}" for kind, count in kinds.items() if count)
    return f"Audit: {told} replaced by the rule." if told else ""


def _measures(record: AttributionRecord) -> tuple[Fact, ...]:
    """Every score of the map; beside it that of a random map where it was taken."""
    found = []
    for name, value in record.measures.items():
        if name.endswith(CHANCE):
            continue
        blind = record.measures.get(name + CHANCE)
        found.append(Fact(name, f"{value:.3f}" + (f" (random map {blind:.3f})" if blind is not None else "")))
    return tuple(found)


def _carriers(store: Store, record: AttributionRecord, read: _Arrays) -> pages.CarriersView | None:
    maps, image = read["carriers"], read["image"]
    found = attributions.carriers(store, record.id)
    if maps is None or image is None or len(maps) != len(found):
        return None
    link, name = _links(store, record)
    units = tuple(
        pages.CarrierView(
            one.unit, _shown(one.concept, one.category), one.category, one.iou, bool(one.detector), one.contribution,
            one.share, small,
            pages.Overlay(f"unit {one.unit}{f', {one.concept}' if one.concept else ''}", _enlarged(image, small)),
            link(one) if link else None,
        )
        for one, small in zip(found, maps)
    )  # fmt: skip
    sums = tuple(
        pages.ConceptSum(_shown(row["concept"], row["category"]), row["category"], row["units"], row["contribution"])
        for row in (record.facts.get("concepts") or [])[:BEST_CONCEPTS]
    )
    return pages.CarriersView(record.layer or "", name, _ways(record), units, sums)


def _shown(concept: str | None, category: str | None) -> str | None:
    return None if concept is None else reports.shown(concept, category or "")


def _ways(record: AttributionRecord) -> str:
    ways = {
        "path": "Contributions are averaged on the way from a silent layer to this one, so they add up to the score "
        "that the layer is worth",
        "gradient": "Contributions are activation x gradient",
        "ablation": "Contributions are drops of the score when a unit is silenced",
    }
    told = ways.get(str(record.parameters.get("way")), "")
    gap = record.facts.get("completeness_gap")
    return f"{told}; they miss it by {abs(gap):.3g}." if gap is not None else f"{told}."


def _enlarged(image: np.ndarray, small: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: pictures.overlay(image, upsample(small, image.shape[:2]))


def _links(store: Store, record: AttributionRecord) -> tuple[Callable[[CarrierRecord], str] | None, str | None]:
    """Links to units in the report of the run that named them, and its name."""
    if record.run_id is None or record.layer is None:
        return None, None
    try:
        run = store.get_run(record.run_id)
        position = store.layer(run.id, record.layer).position
    except SpecError:
        return None, None
    folder = report_folder(store, run)
    if not (folder / "index.html").is_file():
        return None, run.title
    base = f"../{folder.name}/{reports.layer_folder(position, record.layer)}/index.html"
    return (lambda one: f"{base}#unit={one.unit}"), run.title


def _occluders(record: AttributionRecord, read: _Arrays) -> pages.OccluderView:
    names = tuple(record.facts["occluders"])
    overlays = tuple(pages.Overlay(name, read.over(f"occluder_{at}")) for at, name in enumerate(names))
    return pages.OccluderView(
        names, np.asarray(record.facts["correlation"], float), record.facts["agreement"], overlays
    )


def _judgement(store: Store, record: JudgementRecord) -> pages.JudgementView:
    cells = attributions.scores(store, record.id)
    names = list(dict.fromkeys(cell.score for cell in cells))
    rows = []
    for method, group in groupby(cells, key=lambda cell: cell.method):
        mine = {cell.score: cell for cell in group}
        rows.append(pages.JudgedRow(
            method, bool(next(iter(mine.values())).baseline),
            tuple(pages.Cell(mine[name].mean, mine[name].error) for name in names),
        ))  # fmt: skip
    facts = [Fact(key, _told(value)) for key, value in record.settings.items() if value is not None]
    facts += [Fact("data fingerprint", record.data_fingerprint)] if record.data_fingerprint else []
    facts += [Fact("weights sha256", record.weights_sha256)] if record.weights_sha256 else []
    asked = record.settings.get("asked")
    lead = (
        f"{reports.plural(record.items, 'image')} of {record.data_name}, {reports.plural(len(asked), 'concept')}: the "
        "map of a concept's target should lie on the concept."
        if asked
        else f"{reports.plural(record.items, 'image')} whose class is decided by one planted shape, on a network that "
        "looks at nothing else by construction: the map should lie on the shape."
    )
    lead = f"{lead} {_beaten(rows, names)}" if names else lead
    title = f"Judged: {unfoldered(record.model)} on {record.data_name}" if asked else "Judged on the planted set"
    return pages.JudgementView(
        f"j{record.id[:10]}", title, lead,
        tuple((name, MEANING.get(name, "high is good")) for name in names), tuple(rows),
        (*facts, Fact("judgement", record.id)),
    )  # fmt: skip


def _beaten(rows: list[pages.JudgedRow], names: list[str]) -> str:
    """How many methods beat the maps that know nothing, by the first score."""
    low = MEANING.get(names[0], "").endswith("low is good")
    blind = [row for row in rows if row.baseline and row.method != "ground truth"]
    if not blind:
        return ""
    best = (min if low else max)(blind, key=lambda row: row.cells[0].mean)
    methods = [row.cells[0].mean for row in rows if not row.baseline]
    better = sum(mean < best.cells[0].mean if low else mean > best.cells[0].mean for mean in methods)
    return (
        f"By {names[0]}, the best map that knows nothing ({best.method}, {best.cells[0].mean:.3f}) is beaten by "
        f"{better} of {reports.plural(len(methods), 'method')}."
    )


def _told(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_told(inner)}" for key, inner in value.items() if inner is not None)
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    return unfoldered(str(value)) if isinstance(value, str) else json.dumps(value)
