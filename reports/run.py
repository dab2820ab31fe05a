"""The report of one run."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import budget, charts, data, order, text
from .environment import STATIC, hues, page, static, version
from .errors import ReportError
from .folder import replaced
from .layer import CHUNK, VEILS, Folder, Purse, believed, firm, folder_of, layer_bars, plain_card, sentence, write_layer
from .pages import ImageSource, LayerPage, RunPage
from .paging import leaves
from .records import Sheets, records
from .sheets import Crops

CARDS = 120  # units with pictures on a concept page
FIGURES = 30  # layers up to which the run's page draws the bars of each
LISTED = 200  # concepts that the run's page lists
INDEX = 1000  # concepts of one page that lists all of them
SEGMENTS = 64  # image positions of one segmentation file
GRID = 56  # side limit of a segmentation in the page
FILES = 2_048  # files of thumbnails wanted at most; beyond, a sheet holds several units


@dataclasses.dataclass(frozen=True)
class Written:
    """What a build left behind."""

    index: Path
    size: int
    files: int
    redrawn: int
    kept: int
    notes: tuple[str, ...]


def write_run(
    run: RunPage, out: Path, source: ImageSource | None = None, max_bytes: int = budget.DEFAULT,
    progress: Callable[[int], None] = lambda units: None,
) -> Written:  # fmt: skip
    """Write the folder `out` for a run; the old folder stays until the new one is complete.

    Layers whose content did not change are taken over from the old folder. Raises ReportError where even a report
    without pictures would exceed `max_bytes`, OSError from the disk.
    """
    units = sum(layer.count for layer in run.layers)
    rows = 1
    while rows < CHUNK and units > FILES * rows:
        rows *= 2
    rung, notes = _rung(run, source, max_bytes, rows)
    sheets = {layer.position: _sheets(layer, rung, rows, source) for layer in run.layers}
    crops = Crops(source, rung.px, rung.quality) if source is not None and rung.thumbs else None
    purse = Purse(max_bytes)
    redrawn = kept = 0
    with replaced(out) as new:
        folder = Folder(new, purse)
        for name in STATIC:
            folder.write(name, static(name))
        folder.write("concepts.js", data.script("concepts", _concepts(run)))
        header = _header(run, rung, rows, source)
        left = units
        for layer in run.layers:
            left -= layer.count
            key = hashlib.sha256(f"{header}\n{layer.digest}".encode()).hexdigest()
            base = folder_of(layer)
            if _take_over(out / base, new / base, key, folder):
                kept += layer.count
                continue
            before = purse.refused
            write_layer(folder, run, layer, sheets[layer.position], crops, left * 3000 + 200_000, progress)
            if purse.refused == before:
                folder.write(f"{base}/digest.txt", key + "\n")
            redrawn += layer.count
        if purse.refused:
            notes.append(f"{text.plural(purse.refused, 'sheet')} of pictures left out to stay within "
                         f"{text.integer(max_bytes)} bytes.")  # fmt: skip
        positions, strips = _harvest(new, run)
        links = _concept_pages(folder, run, sheets, strips)
        if len(links) > LISTED:
            _concept_index(folder, run, links)
        if source is not None and not _segments(folder, source, sorted(positions)):
            notes.append(f"Segmentations left out to stay within {text.integer(max_bytes)} bytes.")
        folder.write("index.html", _index(run, links, notes))
        if purse.spent > max_bytes:
            raise ReportError(
                f"report of {run.name}: {text.integer(max_bytes)} bytes allowed, but even without pictures it needs "
                f"{text.integer(purse.spent)}; allow more with --max-report-bytes"
            )
    return Written(out / "index.html", purse.spent, folder.files, redrawn, kept, tuple(notes))


def _sheets(layer: LayerPage, rung: budget.Rung, rows: int, source: ImageSource | None) -> Sheets:
    """How a layer's thumbnails lie in files: no more columns than its units have exemplars."""
    return Sheets(rows, min(rung.thumbs, _exemplars(layer)) if source is not None else 0, rung.px)


def _exemplars(layer: LayerPage) -> int:
    """How many top images the units of a layer have, judged by the first."""
    return max((len(card.exemplars) for card in layer.cards(0, min(CHUNK, layer.count))), default=0)


def _concepts(run: RunPage) -> dict[str, Any]:
    return {
        "number": [c.number for c in run.concepts],
        "name": [c.name for c in run.concepts],
        "shown": [text.shown(c.name, c.category) for c in run.concepts],
        "category": [c.category for c in run.concepts],
        "area": [c.area for c in run.concepts],
    }


def _header(run: RunPage, rung: budget.Rung, rows: int, source: ImageSource | None) -> str:
    """Everything outside a layer that its pages show."""
    seen = [
        version(), run.id, run.name, run.model, run.images, run.cut, list(run.categories), _concepts(run),
        [(x.name, x.position) for x in run.layers], dataclasses.astuple(rung), rows, source is not None,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def _take_over(old: Path, new: Path, key: str, folder: Folder) -> bool:
    """Link a layer of the previous report into the new one if it was made from the same things."""
    stamp = old / "digest.txt"
    if not stamp.is_file() or stamp.read_text() != key + "\n":
        return False

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
        folder.purse.pay(os.stat(target).st_size)
        folder.files += 1

    shutil.copytree(old, new, copy_function=link)
    return True


def _rung(run: RunPage, source: ImageSource | None, max_bytes: int, rows: int) -> tuple[budget.Rung, list[str]]:
    """The richest pictures that fit, judged by a sample of chunks; and what to say about it."""
    units = sum(layer.count for layer in run.layers)
    if source is None or not units:
        return budget.LADDER[0], []
    most = max(_exemplars(layer) for layer in run.layers)
    ladder = [dataclasses.replace(rung, thumbs=min(rung.thumbs, most)) for rung in budget.LADDER]
    best = ladder[0]
    if units * best.thumbs * best.px**2 * budget.SURELY + units * 12_000 + 4_000_000 < max_bytes:
        return best, []
    spots = [(layer, first) for layer in run.layers for first in range(0, layer.count, CHUNK)]
    spots = spots[:: max(len(spots) // 4, 1)][:4]
    for rung in ladder:
        crops = Crops(source, rung.px, rung.quality)
        pixel_bytes = other = seen = 0
        for layer, first in spots:
            stop = min(first + CHUNK, layer.count)
            found, strips = records(layer.cards(first, stop), layer.units.threshold[first:stop], rung.thumbs, crops)
            seen += len(found)
            other += len(data.script("units", first, found)) * 2 + 1200 * len(found)
            if rung.thumbs:
                pixel_bytes += sum(len(crops.sheet(strips[at : at + rows])) for at in range(0, len(found), rows))
        if (pixel_bytes + other) / seen * units * 1.04 + 2_000_000 < max_bytes or not rung.thumbs:
            return rung, [] if rung == best else [budget.note(rung, best, max_bytes)]
    raise AssertionError("the last rung has no pictures and always ends the search")


def _harvest(new: Path, run: RunPage) -> tuple[set[int], dict[tuple[int, int], Any]]:
    """From the data files: image positions that are shown, and the records of the units that concept pages show."""
    wanted: dict[int, set[int]] = {layer.position: set() for layer in run.layers}
    for rows in _detectors(run).values():
        for _, position, unit in rows[:CARDS]:
            wanted[position].add(unit)
    positions: set[int] = set()
    strips: dict[tuple[int, int], Any] = {}
    for layer in run.layers:
        for first in range(0, layer.count, CHUNK):
            path = new / folder_of(layer) / "data" / f"{first:05d}.js"
            _, found = data.parse(path.read_text())
            for at, record in enumerate(found):
                positions.update(e[0] for e in record["e"] if not e[7])
                if first + at in wanted[layer.position]:
                    strips[layer.position, first + at] = record
    return positions, strips


def _detectors(run: RunPage) -> dict[int, list[tuple[float, int, int]]]:
    """Concept number -> (-IoU, layer position, unit) of its detectors, best first."""
    rows: dict[int, list[tuple[float, int, int]]] = {}
    for layer in run.layers:
        u = layer.units
        for unit in np.flatnonzero(order.detectors(u.concept, u.iou, run.cut)):
            rows.setdefault(int(u.concept[unit]), []).append((-float(u.iou[unit]), layer.position, int(unit)))
    return {number: sorted(rows[number]) for number in sorted(rows)}


def _concept_pages(
    folder: Folder, run: RunPage, sheets: dict[int, Sheets], strips: dict[tuple[int, int], Any]
) -> list[Any]:
    """One page per concept with a detector; returns the index entries."""
    concepts = {c.number: c for c in run.concepts}
    layers = {layer.position: layer for layer in run.layers}
    index = []
    for number, rows in _detectors(run).items():
        concept = concepts[number]
        name = text.shown(concept.name, concept.category)
        table = []
        for layer in run.layers:
            mine = [(iou, unit) for iou, position, unit in rows if position == layer.position]
            if mine:
                link = f"../{folder_of(layer)}/index.html#concept={number}"
                table.append({"name": layer.name, "units": len(mine), "best": -mine[0][0], "best_unit": mine[0][1],
                              "link": link})  # fmt: skip
        cards = []
        for _, position, unit in rows[:CARDS]:
            layer = layers[position]
            card = plain_card(run, layer, sheets[position], concepts, unit, strips[position, unit])
            src = f"{folder_of(layer)}/{card.strip.src}" if card.strip.src else ""
            cards.append({"unit": unit, "layer": layer.name, "numbers": card.numbers,
                          "link": f"{folder_of(layer)}/index.html#unit={unit}",
                          "strip": dataclasses.replace(card.strip.thinner(VEILS // CARDS), src=src)})  # fmt: skip
        told = (
            f"{text.plural(len(rows), 'unit')} of {text.plural(len(table), 'layer')} "
            f"{'has' if len(rows) == 1 else 'have'} this label at IoU > {run.cut:g}. "
            f"The concept covers {text.plural(concept.area, 'pixel')}"
            + (f" in {text.plural(concept.images, 'image')}." if concept.images is not None else ".")
        )
        folder.write(
            f"concepts/{number}.html",
            page("concept.html", run=run, concept=concept, name=name, sentence=told, layers=table, cards=cards,
                 left_out=max(len(rows) - CARDS, 0), root="../", px=sheets[rows[0][1]].px),
        )  # fmt: skip
        index.append(
            {"name": name, "category": concept.category, "units": len(rows), "link": f"concepts/{number}.html"}
        )
    rank = {category: at for at, category in enumerate(text.category_order(run.categories))}
    return sorted(index, key=lambda c: (rank.get(c["category"], len(rank)), -c["units"], c["name"]))


def _segments(folder: Folder, source: ImageSource, positions: list[int]) -> bool:
    """Label maps of the shown images; False where the byte budget ends before they do."""
    at = 0
    while at < len(positions):
        block = positions[at] // SEGMENTS
        found: dict[str, Any] = {}
        while at < len(positions) and positions[at] // SEGMENTS == block:
            labels = source.labels(positions[at])
            if labels is not None:
                planes, scalars = labels
                found[str(positions[at])] = [[int(s) for s in scalars], [_runs(plane) for plane in planes]]
            at += 1
        content = data.script("segments", block, found)
        if folder.purse.spent + len(content) + 500_000 > folder.purse.limit:
            return False
        folder.write(f"segments/{block}.js", content)
    return True


def _runs(plane: np.ndarray) -> list[int]:
    """[height, width, label, run, label, run ...] of a label plane sampled to at most GRID a side."""
    height, width = min(plane.shape[0], GRID), min(plane.shape[1], GRID)
    rows = (np.arange(height) * 2 + 1) * plane.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * plane.shape[1] // (2 * width)
    flat = plane[np.ix_(rows, columns)].ravel().astype(np.int64)
    cut = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], cut])
    lengths = np.diff(np.concatenate([starts, [flat.size]]))
    return [height, width, *np.stack([flat[starts], lengths], axis=1).ravel().tolist()]


def _index(run: RunPage, links: list[Any], notes: list[str]) -> str:
    names = {c.number: text.shown(c.name, c.category) for c in run.concepts}
    colours = hues(run.categories)
    rows: list[dict[str, Any]] = []
    series: dict[str, list[int]] = {name: [] for name in ("all", *text.category_order(run.categories))}
    for layer in run.layers:
        bars = layer_bars(run, layer)
        counts = {c: sum(b.units for b in bars if b.concept.category == c) for c in run.categories}
        total = sum(b.units for b in bars)
        series["all"].append(total)
        for name, count in counts.items():
            series[name].append(count)
        base = folder_of(layer)
        rows.append({
            "name": layer.name, "link": f"{base}/index.html", "map_size": layer.map_size, "units": layer.count,
            "detectors": total, "share": f"{100 * total / layer.count:.1f} %" if layer.count else "n/a",
            "labels": len(bars), "unique_detectors": layer.unique_detectors,
            "best": max((b.best for b in bars), default=0.0) if bars else float(layer.units.iou.max(initial=0.0)),
            "chart": charts.bar_chart(bars, colours, names, most=charts.MOST // len(run.layers)),
            "sentence": sentence(layer, run.cut, bars),
            "bar_link": _bar_link(base), "firm": firm(layer),
        })  # fmt: skip
    depth = charts.depth_chart([x["name"] for x in rows], series, colours) if len(rows) > 1 else None
    return page("run.html", run=run, layers=rows, depth=depth, names=names, concepts=_commonest(links),
                every=len(links), figures=len(rows) <= FIGURES, root="",
                honesty=[*run.honesty, *notes], lead=_lead(run, rows, links), bibtex=bibtex(run))  # fmt: skip


def _commonest(links: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """So many concepts as the run's page lists: those with the most units, in their order."""
    kept = sorted(range(len(links)), key=lambda at: -links[at]["units"])[:LISTED]
    return [links[at] for at in sorted(kept)]


def _concept_index(folder: Folder, run: RunPage, links: list[dict[str, Any]]) -> None:
    """All concepts, where the run's page does not list them: pages of INDEX."""
    for leaf in leaves(links, INDEX, "index-0.html", "index-{}.html"):
        html = page("concepts.html", run=run, concepts=leaf.items, pages=leaf.pages, root="../")
        folder.write(f"concepts/{leaf.name}", html)


def _bar_link(base: str) -> Callable[[order.Bar], str]:
    return lambda bar: f"{base}/index.html#concept={bar.concept.number}"


def _lead(run: RunPage, rows: list[Any], links: list[Any]) -> str:
    units, chosen = sum(r["units"] for r in rows), sum(r["detectors"] for r in rows)
    where = f" in {text.integer(len(rows))} layers" if len(rows) != 1 else f" in {rows[0]['name']}"
    return (
        f"{text.integer(chosen)} of {text.plural(units, 'unit')}{where} "
        f"{'is a detector' if chosen == 1 else 'are detectors'} of {text.plural(len(links), 'distinct concept')} "
        f"at IoU > {run.cut:g}{believed(run.layers, run.cut)}, over {text.plural(run.images, 'image')}."
    )


def bibtex(run: RunPage) -> str:
    """A BibTeX entry of the run; its id stands for the date, which would differ between equal runs."""

    def plain(value: str) -> str:
        return "".join(c for c in value if c not in "{}\\%$#&~^_" and c.isprintable())

    return (
        f"@misc{{dissect-{text.slug(run.id)[:12]},\n  title = {{Network dissection of {plain(run.model)}: "
        f"{plain(run.name)}}},\n  note = {{Run {plain(run.id)}, {run.convention} convention, "
        f"{plain(run.data)}, {run.images} images, IoU > {run.cut:g}}},\n}}\n"
    )
