"""The curve of unique detectors against the rotation of a layer."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import charts
from .environment import page, static
from .folder import replaced
from .pages import told

RIGHT = 190  # room for the names of the series
HUES = {"rotation": 0, "random directions": 2, "untrained copy": 3}


@dataclass(frozen=True)
class CurvePoint:
    """One run of the curve."""

    series: str = told("rotation, random directions or untrained copy")
    alpha: float | None = told("share of the rotation; None for what is no rotation")
    seed: int | None = told("seed of the draw; None for the layer as it is")
    run: str = told("id of the run")
    detectors: int = told("units, or directions, over the cut")
    unique_detectors: int = told("sum over categories of distinct labels over the cut")
    unique_concepts: int = told("distinct labels among the detectors")
    link: str | None = told("relative link to the run's report; None where there is none", default=None)


@dataclass(frozen=True)
class CurvePage:
    """A layer seen along rotated axes."""

    model: str = told("model that was dissected")
    layer: str = told("layer name")
    data: str = told("name of the concept data")
    images: int = told("images used")
    convention: str = told("convention of the counts")
    units: int = told("units of the layer")
    points: tuple[CurvePoint, ...] = told("all runs; the first is the layer as it is")


def curve_html(page_: CurvePage) -> str:
    """The page."""
    groups = _groups(page_.points)
    farthest = max((g for g in groups if g["alpha"] is not None), key=lambda g: g["alpha"])
    return page(
        "curve.html", page=page_, chart=_chart(groups), groups=groups, base=page_.points[0].unique_detectors,
        root="", last=farthest | {"text": f"{farthest['alpha']:g}"},
    )  # fmt: skip


def write_curve(page_: CurvePage, out: Path) -> Path:
    """Write the folder `out`; returns its index. Raises OSError."""
    html = curve_html(page_)
    with replaced(out) as new:
        for name in ("report.css", "icon.svg"):
            (new / name).write_bytes(static(name))
        (new / "index.html").write_text(html, encoding="utf-8")
    return out / "index.html"


def digest(page_: CurvePage) -> str:
    """Name of the curve: of the runs that it is made of."""
    return hashlib.sha256("\n".join(p.run for p in page_.points).encode()).hexdigest()[:10]


def _groups(points: Sequence[CurvePoint]) -> list[dict[str, Any]]:
    """Runs that differ by their seed only, with mean, least and most unique detectors."""
    found: dict[tuple[str, float | None], list[CurvePoint]] = {}
    for point in points:
        found.setdefault((point.series, point.alpha), []).append(point)
    groups = []
    for (series, alpha), mine in found.items():
        unique = [p.unique_detectors for p in mine]
        groups.append({
            "series": series, "alpha": alpha, "runs": mine, "mean": sum(unique) / len(unique),
            "low": min(unique), "high": max(unique),
            "detectors": sum(p.detectors for p in mine) / len(mine),
            "concepts": sum(p.unique_concepts for p in mine) / len(mine),
        })  # fmt: skip
    return groups


def _chart(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The rotation as a line with a mark for every seed, the others as levels across the chart."""
    width, height, left, upper, lower = charts.WIDTH, 360, 60, 16, 52
    right = width - RIGHT
    top = max([g["high"] for g in groups] + [1])

    def x(alpha: float) -> float:
        return round(left + 16 + (right - left - 32) * alpha, 1)

    def y(value: float) -> float:
        return round(height - lower - value / top * (height - lower - upper), 1)

    curve = sorted((g for g in groups if g["alpha"] is not None), key=lambda g: g["alpha"])
    levels = [g for g in groups if g["alpha"] is None]
    ends = [("rotation", curve[-1]["mean"]), *((g["series"], g["mean"]) for g in levels)]
    places: dict[str, float] = {}
    last = -99.0
    for name, value in sorted(ends, key=lambda end: -end[1]):
        places[name] = last = max(y(value) + 4, last + 16)
    over = max(0.0, last - (height - lower + 4))
    places = {name: place - over for name, place in places.items()}
    band = [f"{x(g['alpha'])},{y(g['high'])}" for g in curve] + [f"{x(g['alpha'])},{y(g['low'])}" for g in curve[::-1]]
    return {
        "width": width, "height": height, "left": left, "right": right, "floor": height - lower,
        "ticks": [(y(v), v) for v in charts.ticks(top)],
        "xs": [(x(g["alpha"]), f"{g['alpha']:g}") for g in curve],
        "line": " ".join(f"{x(g['alpha'])},{y(g['mean'])}" for g in curve), "band": " ".join(band),
        "marks": [(x(g["alpha"]), y(p.unique_detectors)) for g in curve for p in g["runs"]],
        "levels": [
            {"hue": HUES.get(g["series"], 6), "y": y(g["mean"]), "upper": y(g["high"]),
             "height": round(y(g["low"]) - y(g["high"]), 1)}
            for g in levels
        ],
        "names": [(HUES.get(name, 6), name, f"{value:.3g}", places[name]) for name, value in ends],
    }  # fmt: skip
