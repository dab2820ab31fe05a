"""Layers beside each other: categories, concept sets, counts, changed labels and units alike."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import charts, order, text
from .environment import hues, page, static
from .errors import ReportError
from .folder import replaced
from .pages import ComparedLayer, ComparePage, MatchedUnits

BAR = 110  # width of the longest bar in the table of concepts
ROWS = 300  # rows of a table on the page
CHANGED = 150  # units with changed labels that are listed
OPEN = 20  # of which so many are in sight at once
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TITLE = 15  # characters of a name under a line
GROUPED = 4  # columns that the bars by category can show beside each other
TREND = 3  # columns from which their order is drawn as a line


@dataclass(frozen=True)
class _Side:
    """One column and what was counted in it."""

    letter: str
    column: ComparedLayer
    detectors: int
    units: dict[int, int]
    best: dict[int, float]
    by_category: dict[str, int]


def check(page_: ComparePage) -> None:
    """Raise ReportError where the columns cannot be compared."""
    if not 2 <= len(page_.columns) <= len(LETTERS):
        raise ReportError(f"a comparison takes 2 to {len(LETTERS)} layers, found {len(page_.columns)}")
    for what, values in (
        ("convention", [c.convention for c in page_.columns]),
        ("concept data", [c.data for c in page_.columns]),
    ):
        if len(set(values)) > 1:
            named = ", ".join(f"{c.run}: {v[:16]}" for c, v in zip(page_.columns, values))
            raise ReportError(f"runs with different {what} cannot be compared ({named}): dissect them alike")


def compare_html(page_: ComparePage, root: str = "") -> str:
    """The page; `root` leads to the folder of the style sheet. Raises ReportError for what cannot be compared."""
    check(page_)
    concepts = {c.number: c for c in page_.concepts}
    names = {c.number: text.shown(c.name, c.category) for c in page_.concepts}
    sides = []
    for letter, column in zip(LETTERS, page_.columns):
        bars = order.bars(column.concept, column.iou, column.cut, concepts, page_.categories)
        units = {b.concept.number: b.units for b in bars}
        by_category = {c: sum(b.units for b in bars if b.concept.category == c) for c in page_.categories}
        best = {b.concept.number: b.best for b in bars}
        sides.append(_Side(letter, column, sum(units.values()), units, best, by_category))
    rank = {name: at for at, name in enumerate(text.category_order(page_.categories))}
    met = sorted(
        {n for side in sides for n in side.units},
        key=lambda n: (rank[concepts[n].category], -sum(s.units.get(n, 0) for s in sides), names[n]),
    )
    rows: list[dict[str, Any]] = []
    for number in met:
        counts = [side.units.get(number, 0) for side in sides]
        rows.append({
            "name": names[number], "category": concepts[number].category, "counts": counts,
            "deltas": [c - counts[0] for c in counts[1:]],
            "where": "".join(s.letter for s, c in zip(sides, counts) if c),
            "best": [side.best.get(number) for side in sides], "number": number,
            "intervals": [_interval(side, number) for side in sides],
        })  # fmt: skip
    most = max((max(row["counts"]) for row in rows), default=0) or 1
    for row in rows:
        row["bars"] = [(s.letter, round(BAR * c / most, 1)) for s, c in zip(sides, row["counts"])]
    same_run = len({column.run for column in page_.columns}) == 1
    sets = []
    patterns = sorted({r["where"] for r in rows}, key=lambda w: (-len(w), w))
    if len(sides) > GROUPED:  # too many to tell apart: what all have, and what only one has
        patterns = [w for w in patterns if len(w) in (1, len(sides))]
    for pattern in patterns:
        mine = [r["name"] for r in rows if r["where"] == pattern]
        sets.append({"title": "Both" if len(sides) == 2 and len(pattern) == 2 else
                     f"All {len(sides)}" if len(pattern) == len(sides) else "Only " + " and ".join(pattern),
                     "names": mine})  # fmt: skip
    categories, colours = text.category_order(page_.categories), hues(page_.categories)
    chart = _chart(sides, categories, colours)
    series = {name: [side.by_category[name] for side in sides] for name in categories}
    trend = None
    if len(sides) >= TREND:
        under = [s.column.layer if same_run else s.column.run for s in sides]
        short = all(len(name) < TITLE for name in under)  # long names of runs tend to begin alike
        titles = [f"{s.letter} {name}" if short else s.letter for s, name in zip(sides, under)]
        trend = charts.depth_chart(titles, series | {"all": [side.detectors for side in sides]}, colours)
    changes = [
        _changes(sides[0], side, names) for side in sides[1:] if side.column.same_units and _matching(sides[0], side)
    ]
    return page("compare.html", page=page_, sides=sides, rows=rows[:ROWS], left_out=max(len(rows) - ROWS, 0), sets=sets,
                chart=chart, grouped=len(sides) <= GROUPED, trend=trend, changes=changes,
                alike=[_alike(m, sides, names) for m in page_.matches], lead=_lead(sides, rows), bar=BAR, shown=OPEN,
                hues=colours, root=root)  # fmt: skip


def _lead(sides: list[_Side], rows: list[dict[str, Any]]) -> str:
    """What the columns share, in a sentence."""
    every = "".join(side.letter for side in sides)
    shared = sum(row["where"] == every for row in rows)
    alone = [f"{text.integer(sum(row['where'] == s.letter for row in rows))} only in {s.letter}" for s in sides]
    who = "both" if len(sides) == 2 else f"all {len(sides)}"
    return f"Of {text.plural(len(rows), 'detected concept')}, {text.integer(shared)} are found in {who}, " + (
        f"{', '.join(alone[:-1])} and {alone[-1]}." if len(sides) <= GROUPED else "the others in some."
    )


def _interval(side: _Side, concept: int) -> tuple[float, float] | None:
    """95 % interval of the best detector of a concept, where it has one."""
    column = side.column
    if column.interval is None or concept not in side.best:
        return None
    mine = np.where((column.concept == concept), column.iou, -1.0)
    low, high = column.interval[int(mine.argmax())]
    return (float(low), float(high)) if np.isfinite(low) and np.isfinite(high) else None


def _alike(match: MatchedUnits, sides: list[_Side], names: dict[int, str]) -> dict[str, Any]:
    """Pairs of units of two networks, the most alike first; detectors only."""
    a, b = sides[0].column, sides[match.column].column
    both = (
        order.detectors(a.concept, a.iou, a.cut)[match.unit] & order.detectors(b.concept, b.iou, b.cut)[match.partner]
    )
    found = np.flatnonzero(both)
    listed = found[np.lexsort((match.unit[found], -match.correlation[found]))][:CHANGED]
    rows = [
        {"unit": int(match.unit[k]), "partner": int(match.partner[k]), "correlation": float(match.correlation[k]),
         "before": names[int(a.concept[match.unit[k]])], "after": names[int(b.concept[match.partner[k]])],
         "iou_before": float(a.iou[match.unit[k]]), "iou_after": float(b.iou[match.partner[k]])}
        for k in listed
    ]  # fmt: skip
    return {"to": sides[match.column], "pairs": len(match.unit), "both": len(found), "rows": rows,
            "agreement": match.agreement, "chance": match.chance, "left_out": len(found) - len(listed)}  # fmt: skip


def _matching(a: _Side, b: _Side) -> bool:
    return len(a.column.concept) == len(b.column.concept)


def _changes(a: _Side, b: _Side, names: dict[int, str]) -> dict[str, Any]:
    """What became of each unit's label from A to B."""
    before = np.where(order.detectors(a.column.concept, a.column.iou, a.column.cut), a.column.concept, -1)
    after = np.where(order.detectors(b.column.concept, b.column.iou, b.column.cut), b.column.concept, -1)
    differs = np.flatnonzero(before != after)
    gain = np.abs(b.column.iou - a.column.iou)[differs]
    listed = differs[np.lexsort((differs, -gain))][:CHANGED]
    return {
        "from": a, "to": b,
        "kept": int(((before == after) & (before >= 0)).sum()),
        "swapped": int(((before != after) & (before >= 0) & (after >= 0)).sum()),
        "lost": int(((before >= 0) & (after < 0)).sum()),
        "gained": int(((before < 0) & (after >= 0)).sum()),
        "rows": [
            {"unit": int(u), "before": names.get(int(before[u]), "none"), "after": names.get(int(after[u]), "none"),
             "iou_before": float(a.column.iou[u]), "iou_after": float(b.column.iou[u])}
            for u in listed
        ],
        "left_out": len(differs) - len(listed),
    }  # fmt: skip


def _chart(sides: list[_Side], categories: tuple[str, ...], colours: dict[str, int]) -> dict[str, Any]:
    """Grouped bars: detectors by category, one bar per column."""
    top = max((n for s in sides for n in s.by_category.values()), default=0) or 1
    wide, high, foot = 22, 150, 46
    x, groups = 8, []
    for category in categories:
        bars = []
        for k, side in enumerate(sides):
            units = side.by_category[category]
            height = round(units / top * high, 1)
            bars.append({"x": x + k * (wide + 3), "y": 22 + high - height, "height": height, "units": units,
                         "letter": side.letter})  # fmt: skip
        width = len(sides) * (wide + 3) - 3
        groups.append({"category": category, "hue": colours[category], "bars": bars, "middle": x + width / 2})
        x += max(width, 8 * len(category)) + 26
    return {"width": min(x, charts.WIDTH) if x < charts.WIDTH else x, "height": 22 + high + foot, "groups": groups}


def write_compare(page_: ComparePage, out: Path) -> Path:
    """Write the folder `out` for a comparison; returns its index. Raises ReportError, OSError."""
    html = compare_html(page_)
    with replaced(out) as new:
        for name in ("report.css", "icon.svg"):
            (new / name).write_bytes(static(name))
        (new / "index.html").write_text(html, encoding="utf-8")
    return out / "index.html"


def put(path: Path, content: bytes) -> None:
    """Write one file beside its place and rename it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
