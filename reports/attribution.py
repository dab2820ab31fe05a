"""Where decisions came from: maps on their images, the units that carried them, and how good the methods are."""

# ruff: noqa: RUF009 - `told` is dataclasses.field with a help text

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import images, text
from .environment import hues, page, static
from .folder import replaced
from .pages import Fact, told

ASIDE = "_attributions"  # folder beside the reports of the runs
PICTURE_PX = 336  # longest side of a picture
DRAWN = 6  # carriers that get an outline of their own colour


@dataclass(frozen=True)
class Overlay:
    """One picture of a map."""

    title: str = told("what it shows, in a few words")
    read: Callable[[], np.ndarray | None] = told("uint8 [h, w, 3]; None where the file is gone")


@dataclass(frozen=True)
class MapView:
    """One method's answer."""

    method: str = told("name of the method")
    overlays: tuple[Overlay, ...] = told("pictures: the map over the image, its positive and its negative part")
    lead: str = told("what was replaced on the way, in one sentence", default="")
    measures: tuple[Fact, ...] = told("what was judged on this map", default=())
    facts: tuple[Fact, ...] = told("what was in the method's slots, and what it told", default=())


@dataclass(frozen=True)
class CarrierView:
    """A unit's part in the decision."""

    unit: int = told("unit, from 0")
    concept: str | None = told("its label; None: no label or no dissection")
    category: str | None = told("category of the label")
    iou: float | None = told("IoU of the label")
    detector: bool = told("whether that IoU passed the cut")
    contribution: float = told("what the unit gave to the score")
    share: float = told("of the sum of all magnitudes, 0 to 1")
    map: np.ndarray = told("where it gave it: float [h, w]")
    overlay: Overlay = told("that map over the image")
    link: str | None = told("relative link to the unit's place in a report; None: there is none", default=None)


@dataclass(frozen=True)
class ConceptSum:
    """What all detectors of a concept gave together."""

    concept: str | None = told("the concept; None: units that detect nothing")
    category: str | None = told("its category")
    units: int = told("how many units")
    contribution: float = told("their sum")


@dataclass(frozen=True)
class CarriersView:
    """The units of a layer that carried the decision."""

    layer: str = told("layer name")
    run: str | None = told("the dissection that named them; None: they have no names")
    lead: str = told("what the contributions are and how well they add up")
    units: tuple[CarrierView, ...] = told("largest part first")
    concepts: tuple[ConceptSum, ...] = told("sums by concept, largest first", default=())


@dataclass(frozen=True)
class OccluderView:
    """Occlusion under several occluders."""

    names: tuple[str, ...] = told("the occluders")
    correlation: np.ndarray = told("rank correlation of their maps; float [O, O]")
    agreement: float = told("its mean off the diagonal")
    overlays: tuple[Overlay, ...] = told("the maps, in the order of the names")


@dataclass(frozen=True)
class Decision:
    """One image and one target of one network, with everything that was asked about it."""

    key: str = told("anchor, unique on the page")
    image: str = told("name of the image")
    target: str = told("what was attributed")
    model: str = told("the network")
    score: float = told("score of the target")
    photo: Overlay = told("the image as the network saw it")
    maps: tuple[MapView, ...] = told("one view a method", default=())
    carriers: tuple[CarriersView, ...] = told("one view a layer", default=())
    occluders: tuple[OccluderView, ...] = told("occluder sensitivity", default=())
    meanings: tuple[Fact, ...] = told("what the scores of the maps mean", default=())


@dataclass(frozen=True)
class Cell:
    """One score of one method."""

    mean: float = told("mean over the questions")
    error: float | None = told("its standard error; None: too few questions")


@dataclass(frozen=True)
class JudgedRow:
    """One method, or a map that knows nothing or everything."""

    method: str = told("its name")
    baseline: bool = told("whether it is a baseline")
    cells: tuple[Cell, ...] = told("one a score")


@dataclass(frozen=True)
class JudgementView:
    """A judging table."""

    key: str = told("anchor, unique on the page")
    title: str = told("heading")
    lead: str = told("what was asked")
    scores: tuple[tuple[str, str], ...] = told("name and meaning of each column")
    rows: tuple[JudgedRow, ...] = told("methods, then baselines")
    facts: tuple[Fact, ...] = told("everything that the scores depend on", default=())


@dataclass(frozen=True)
class AttributionsPage:
    """All attributions of a workspace."""

    title: str = told("heading of the page")
    decisions: tuple[Decision, ...] = told("newest first")
    judgements: tuple[JudgementView, ...] = told("judging tables, newest first", default=())


@dataclass(frozen=True)
class _Shown:
    title: str
    src: str
    width: int
    height: int


def write_attributions(page_: AttributionsPage, out: Path) -> Path:
    """Write `out`/_attributions with its pictures; the old one stays until the new one is complete."""
    with replaced(out / ASIDE) as new:
        for name in ("report.css", "attribution.css", "icon.svg"):
            (new / name).write_bytes(static(name))
        drawn = [_decision(new, decision) for decision in page_.decisions]
        tables = [(table, _best(table)) for table in page_.judgements]
        html = page("attribution.html", page=page_, decisions=drawn, judgements=tables, root="")
        (new / "index.html").write_text(html, encoding="utf-8")
    return out / ASIDE / "index.html"


def _decision(new: Path, decision: Decision) -> dict[str, Any]:
    photo = _put(new, f"{decision.key}-photo", decision.photo)
    return {
        "d": decision,
        "photo": photo,
        "maps": [
            (view, [_put(new, f"{decision.key}-m{m}-{k}", one) for k, one in enumerate(view.overlays)])
            for m, view in enumerate(decision.maps)
        ],
        "carriers": [_carriers(new, f"{decision.key}-c{k}", view, photo) for k, view in enumerate(decision.carriers)],
        "occluders": [
            (view, [_put(new, f"{decision.key}-o{k}-{n}", one) for n, one in enumerate(view.overlays)])
            for k, view in enumerate(decision.occluders)
        ],
    }


def _carriers(new: Path, key: str, view: CarriersView, photo: _Shown) -> dict[str, Any]:
    """The carriers with outlines for the photo: where the strongest units gave more than half of their highest part."""
    kinds = hues(tuple(dict.fromkeys(unit.category for unit in view.units if unit.category)))
    outlines = []
    for unit in view.units[:DRAWN]:
        magnitude = np.nan_to_num(np.abs(np.asarray(unit.map, np.float32)))[None]
        (path,) = images.outlines(magnitude, np.array([magnitude.max() / 2 if magnitude.any() else 1.0], np.float32))
        outlines.append(path)
    # Units that detect nothing are many: they come last and have no bar, or they would dwarf all others.
    named = sorted(view.concepts, key=lambda row: row.concept is None)
    top = max((abs(row.contribution) for row in named if row.concept), default=0.0) or 1.0
    return {
        "v": view,
        "photo": photo,
        "paths": outlines,
        "units": [
            (unit, kinds.get(unit.category or "", 6), _put(new, f"{key}-u{unit.unit}", unit.overlay))
            for unit in view.units
        ],
        "bars": [(row, round(100 * abs(row.contribution) / top, 1)) for row in named],
    }


def _best(table: JudgementView) -> list[str]:
    """For each score the best mean of a method that is no baseline, as it is shown: the largest, or the smallest where
    low is good."""
    found = []
    for at, (_, meaning) in enumerate(table.scores):
        values = [row.cells[at].mean for row in table.rows if not row.baseline]
        found.append(f"{(min if meaning.endswith('low is good') else max)(values, default=0.0):.3f}")
    return found


def _put(new: Path, name: str, overlay: Overlay) -> _Shown:
    """Write one picture; an empty `src` where it is gone."""
    pixels = overlay.read()
    if pixels is None:
        return _Shown(overlay.title, "", 0, 0)
    shown = Image.fromarray(np.ascontiguousarray(pixels))
    shown.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", quality=86, method=4)
    file = f"{text.slug(name)}.webp"
    (new / file).write_bytes(buffer.getvalue())
    return _Shown(overlay.title, file, *shown.size)
