"""The pages of one layer: figure, data files, sheets of thumbnails and plain pages."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import charts, data, images, order, text
from .environment import hues, page
from .pages import Concept, LayerPage, RunPage, UnitCard
from .paging import leaves
from .records import Record, Sheets, Why, records, why
from .sheets import Crops

CHUNK = 32  # units of one detail file
BLOCK = 16_384  # units of one column file
PLAIN = 200  # units of one plain page
LABELS = 400  # labels of one page that lists them
MADE = 4  # synthesised pictures of one unit
MADE_PX = 224  # their longest side
VEILS = 600_000  # characters of masks on one plain page, which keep it below a megabyte
RATE = 0.05  # share of false finds that one may live with


class Purse:
    """Bytes spent and allowed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spent = 0
        self.refused = 0

    def pay(self, size: int) -> None:
        """Count bytes that must be written."""
        self.spent += size

    def affords(self, size: int, reserve: int) -> bool:
        """Whether a picture may be written while `reserve` bytes of other files are still to come."""
        if self.refused or self.spent + size + reserve > self.limit:
            self.refused += 1
            return False
        return True


class Folder:
    """Writes the files of a report and counts them."""

    def __init__(self, root: Path, purse: Purse) -> None:
        self.root = root
        self.purse = purse
        self.files = 0
        self._made: set[Path] = set()

    def write(self, name: str, content: str | bytes) -> None:
        """Write one file below the root."""
        path = self.root / name
        if path.parent not in self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(path.parent)
        content = content.encode("utf-8") if isinstance(content, str) else content
        path.write_bytes(content)
        self.purse.pay(len(content))
        self.files += 1


def layer_folder(position: int, name: str) -> str:
    """Folder of a layer's pages in a report: its position and what of its name can stand in a path."""
    return f"layers/{position}-{text.slug(name)}"


def folder_of(layer: LayerPage) -> str:
    """Folder of a layer's pages."""
    return layer_folder(layer.position, layer.name)


def sentence(layer: LayerPage, cut: float, bars: list[order.Bar]) -> str:
    """'434 of 512 units are detectors of 187 distinct concepts at IoU > 0.04, 401 of them at q < 0.05.'"""
    chosen = int(order.detectors(layer.units.concept, layer.units.iou, cut).sum())
    kinds = text.plural(len(bars), "distinct concept")
    many = "unit is a detector" if chosen == 1 else "units are detectors"
    where = f"at IoU > {cut:g}{believed([layer], cut)}"
    return f"{text.integer(chosen)} of {text.integer(layer.count)} {many} of {kinds} {where}."


def firm(layer: LayerPage) -> str:
    """Which detectors the solid part of a bar counts; empty where the run cannot tell. The page's script agrees."""
    if layer.units.q is not None:
        return f"whose score holds against chance (q < {RATE:g})"
    return "whose 95 % interval lies above the cut" if layer.units.low is not None else ""


def sure(layer: LayerPage, cut: float) -> np.ndarray | None:
    """bool [U]: units that `firm` speaks of; None where the run cannot tell."""
    if layer.units.q is not None:
        return layer.units.q < RATE
    return None if layer.units.low is None else layer.units.low > cut


def believed(layers: Sequence[LayerPage], cut: float) -> str:
    """', 401 of them at q < 0.05': how many detectors one may believe; empty where the run cannot tell."""
    found = [(x, sure(x, cut)) for x in layers]
    told = [int((order.detectors(x.units.concept, x.units.iou, cut) & s).sum()) for x, s in found if s is not None]
    kinds = {x.units.q is not None for x in layers}
    if not told or len(told) < len(layers) or len(kinds) > 1:
        return ""
    what = f"at q\u00a0<\u00a0{RATE:g}" if kinds == {True} else "with the whole 95 % interval above it"
    return f", {text.integer(sum(told))} of them {what}"


def layer_bars(run: RunPage, layer: LayerPage) -> list[order.Bar]:
    """The labels of a layer's detectors, with those that one may believe."""
    concepts = {c.number: c for c in run.concepts}
    return order.bars(layer.units.concept, layer.units.iou, run.cut, concepts, run.categories, sure(layer, run.cut))


def flags(layer: LayerPage, unit: int) -> list[str]:
    """What is odd about a unit, in words."""
    u = layer.units
    named = ((u.dead, "dead: constant activation"), (u.saturated, "saturated: empty mask"), (u.nonfinite, "not finite"))
    return [words for column, words in named if column[unit]]


def write_layer(
    out: Folder, run: RunPage, layer: LayerPage, sheets: Sheets, crops: Crops | None, reserve_after: int,
    progress: Callable[[int], None],
) -> None:  # fmt: skip
    """Write everything below the layer's folder. `reserve_after`: bytes to keep for what follows this layer."""
    base = folder_of(layer) + "/"
    concepts = {c.number: c for c in run.concepts}
    _write_head(out, base, run, layer, sheets, concepts)
    plain = _Plain(out, base, run, layer, sheets, concepts)
    start = out.purse.spent
    for first in range(0, layer.count, CHUNK):
        stop = min(first + CHUNK, layer.count)
        each = (out.purse.spent - start) / first if first else 0.0
        cards = layer.cards(first, stop)
        found, strips = records(cards, layer.units.threshold[first:stop], sheets.thumbs, crops)
        for card, record in zip(cards, found):
            if made := _made(out, base, card, int(plain.each * (layer.count - first)) + reserve_after):
                record["m"] = made
        for at in range(0, len(found), sheets.rows):
            mine = found[at : at + sheets.rows]
            if crops is None or not any(record["k"] for record in mine):
                continue
            blank = [[crops.blank] * sheets.thumbs] * (sheets.rows - len(mine))
            content = crops.sheet(strips[at : at + sheets.rows] + blank)
            if out.purse.affords(len(content), int(plain.each * (layer.count - first)) + reserve_after):
                out.write(base + sheets.name(first + at, layer.count), content)
                start += len(content)
            else:
                for record in mine:
                    record["k"] = 0
        out.write(f"{base}data/{first:05d}.js", data.script("units", first, found))
        plain.add(found)
        plain.each = max(plain.each, each)
        progress(len(found))
    plain.finish()


def _made(out: Folder, base: str, card: UnitCard, reserve: int) -> list[list[Any]]:
    """Write the pictures synthesised for a unit; [file, title, note, width, height] of each that is there."""
    written: list[list[Any]] = []
    for picture in card.made[:MADE]:
        file = picture.read()
        shown = images.shrunk(file, MADE_PX) if file is not None else None
        if shown is not None and out.purse.affords(len(shown[0]), reserve):
            name = f"made/{card.unit:05d}-{len(written)}.webp"
            out.write(base + name, shown[0])
            written.append([name, picture.title, picture.note, *shown[1:]])
    return written


def columns(layer: LayerPage, concepts: dict[int, Concept]) -> dict[str, list[Any]]:
    """Columns for the page's script. IoU is sent only for a layer where it is not I / (A + G - I) throughout."""
    u = layer.units
    concept, i, a = (np.asarray(c, dtype=np.int64) for c in (u.concept, u.intersection, u.unit_area))
    out: dict[str, list[Any]] = {
        "concept": concept.tolist(),
        "intersection": i.tolist(),
        "area": a.tolist(),
        "threshold": data.finites(u.threshold),
        "flags": (u.dead * 1 + u.saturated * 2 + (u.nonfinite > 0) * 4).tolist(),
    }
    if u.nonfinite.any():
        out["nonfinite"] = u.nonfinite.tolist()
    g = np.array([concepts[int(c)].area if c >= 0 else 0 for c in concept], dtype=np.int64)
    union = a + g - i
    follows = np.where((i > 0) & (union > 0) & (concept >= 0), i / np.maximum(union, 1), 0.0)
    if not np.array_equal(follows, u.iou):
        out["iou"] = data.finites(u.iou)
    for name in ("low", "high", "null", "p", "q", "stability", "phi", "iqr", "ap"):
        column = getattr(u, name)
        if column is not None:
            out[name] = data.finites(column)
    return out


def _write_head(
    out: Folder, base: str, run: RunPage, layer: LayerPage, sheets: Sheets, concepts: dict[int, Concept]
) -> None:
    bars = layer_bars(run, layer)
    names = {c.number: text.shown(c.name, c.category) for c in run.concepts}
    files = ["layer.js"]
    meta = {
        "run": run.name, "id": run.id, "layer": layer.name, "count": layer.count, "cut": run.cut, "px": sheets.px,
        "thumbs": sheets.thumbs, "rows": sheets.rows, "chunk": CHUNK, "images": run.images, "map": layer.map_size,
        "categories": list(text.category_order(run.categories)), "hues": hues(run.categories),
    }  # fmt: skip
    out.write(f"{base}layer.js", data.script("layer", meta))
    sent = columns(layer, concepts)
    for block, first in enumerate(range(0, layer.count, BLOCK)):
        part = {name: column[first : first + BLOCK] for name, column in sent.items()}
        out.write(f"{base}units-{block}.js", data.script("columns", first, part))
        files.append(f"units-{block}.js")
    shared = {
        "run": run, "layer": layer, "root": "../../", "px": sheets.px, "names": names, "bars": bars,
        "bar_link": lambda bar: f"../../concepts/{bar.concept.number}.html",
        "sentence": sentence(layer, run.cut, bars),
    }  # fmt: skip
    listed = [
        {"file": f"plain-{n}.html", "first": n * PLAIN, "last": min((n + 1) * PLAIN, layer.count) - 1}
        for n in range(max(math.ceil(layer.count / PLAIN), 1))
    ]
    others = [
        {"name": o.name, "link": f"../../{folder_of(o)}/index.html", "here": o.position == layer.position}
        for o in run.layers
    ]
    chart = charts.bar_chart(bars, hues(run.categories), names)
    out.write(
        f"{base}index.html",
        page("layer.html", chart=chart, files=files, plain=listed, others=others, firm=firm(layer),
             **shared),
    )  # fmt: skip
    for leaf in leaves(bars, LABELS, "labels.html", "labels-{}.html"):
        out.write(base + leaf.name, page("labels.html", pages=leaf.pages, **shared | {"bars": leaf.items}))


@dataclass(frozen=True)
class PlainCard:
    """One unit of a plain page."""

    unit: int
    label: str
    numbers: str
    others: str
    notes: str
    below: bool
    strip: Any
    made: Any


class _Plain:
    """Collects records and writes a page every PLAIN units."""

    def __init__(
        self, out: Folder, base: str, run: RunPage, layer: LayerPage, sheets: Sheets, concepts: dict[int, Concept]
    ) -> None:
        self.out, self.base, self.run, self.layer, self.sheets = out, base, run, layer, sheets
        self.concepts = concepts
        self.cards: list[PlainCard] = []
        self.written = 0
        self.each = 3000.0  # bytes a unit that are not pictures, raised to what is seen

    def add(self, found: list[Record]) -> None:
        for record in found:
            unit = self.written + len(self.cards)
            self.cards.append(plain_card(self.run, self.layer, self.sheets, self.concepts, unit, record))
            if len(self.cards) == PLAIN:
                self._write()

    def finish(self) -> None:
        if self.cards or not self.written:
            self._write()

    def _write(self) -> None:
        number, last = self.written // PLAIN, max(math.ceil(self.layer.count / PLAIN) - 1, 0)
        wanted = sorted({0, number - 1, number, number + 1, last} & set(range(last + 1)))
        pages = [
            (f"{n * PLAIN}–{min((n + 1) * PLAIN, self.layer.count) - 1}", None if n == number else f"plain-{n}.html")
            for n in wanted
        ]
        thin = sum(len(card.strip.veil) for card in self.cards) > VEILS
        if thin:
            self.cards = [replace(card, strip=card.strip.thinner(VEILS // len(self.cards))) for card in self.cards]
        html = page(
            "plain.html", thin=thin, run=self.run, layer=self.layer, root="../../", px=self.sheets.px, cards=self.cards,
            first=self.written, last=max(self.written + len(self.cards) - 1, 0), pages=pages,
        )  # fmt: skip
        self.out.write(f"{self.base}plain-{number}.html", html)
        self.written += len(self.cards)
        self.cards = []


def told(layer: LayerPage, concepts: dict[int, Concept], unit: int, record: Record) -> Why:
    """A unit in words."""
    u = layer.units
    interval = (float(u.low[unit]), float(u.high[unit])) if u.low is not None and u.high is not None else None
    columns = (u.q, u.stability, u.null, u.phi, u.ap)
    q, stability, null, phi, ap = (None if column is None else float(column[unit]) for column in columns)
    return why(
        record, concepts.get(int(u.concept[unit])), int(u.intersection[unit]), int(u.unit_area[unit]),
        float(u.iou[unit]), float(u.threshold[unit]), flags(layer, unit), concepts, interval, q, stability, null,
        phi, ap,
    )  # fmt: skip


def plain_card(
    run: RunPage, layer: LayerPage, sheets: Sheets, concepts: dict[int, Concept], unit: int, record: Record
) -> PlainCard:
    """A unit in words, with its strip."""
    said, iou = told(layer, concepts, unit, record), float(layer.units.iou[unit])
    alt = f"Unit {unit}, {said.label}, IoU {text.iou(iou, 2)}: top images"
    strip = sheets.strip(unit, layer.count, record, alt)
    below = int(layer.units.concept[unit]) not in concepts or not iou > run.cut
    return PlainCard(unit, said.label, said.numbers, said.others, said.notes, below, strip, record.get("m", ()))
