"""Synthesised pictures: what they show, how good they are, and which of them belong to the units of a layer."""

from collections.abc import Callable, Mapping
from pathlib import Path

import reports
from dissect.store import RunRecord, Store, syntheses
from dissect.store.syntheses import PictureRecord
from reports import pages

LARGE = ("-sheet", "-curves", "-curve", "-film")
"""Ends of the kinds that show many pictures at once."""


def of_units(store: Store, record: RunRecord, layer: str) -> Mapping[int, tuple[pages.Synthesis, ...]]:
    """By unit of a run's layer what was synthesised for it, oldest first; empty where nothing was."""
    found: dict[int, list[pages.Synthesis]] = {}
    for file, one in syntheses.of_layer(store, record.id, record.weights_sha256, layer):
        if one.unit is not None and not one.kind.endswith(LARGE):
            kind = one.kind.replace("-", " ")
            title = f"{kind[:1].upper()}{kind[1:]} of unit {one.unit}"
            title += f", restart {one.restart}" if one.restart else ""
            found.setdefault(one.unit, []).append(pages.Synthesis(title, measured(one), reader(file)))
    return {unit: tuple(some) for unit, some in found.items()}


def reader(path: Path) -> Callable[[], bytes | None]:
    """Reads a file when it is asked for; None where it is gone."""

    def read() -> bytes | None:
        try:
            return path.read_bytes()
        except OSError:
            return None

    return read


def measured(record: PictureRecord) -> str:
    """How good a picture is, in words: whatever its command measured."""
    m = record.measures
    if m.get("stopped"):
        return f"stopped: {m['stopped']}"
    parts = []
    if "feature_error" in m:
        parts.append(f"feature error {short(m['feature_error'])}, image error {short(m['image_error'])}")
    if "synthetic" in m:
        parts.append(f"answer {short(m['synthetic'])}")
        if m.get("best_real") is not None:
            parts.append(f"best photo {short(m['best_real'])}")
        if m.get("second_probability") is not None:
            parts.append(f"second network: rank {short(m['second_rank'])}, p {short(m['second_probability'])}")
    if "confidence" in m:
        parts.append(f"confidence {short(m['confidence'])}")
    if "norm" in m:
        parts.append(f"norm {short(m['norm'])}" if m["success"] else "no perturbation found")
    return "; ".join(parts)


def short(value: float | None) -> str:
    """A measure in three digits."""
    if value is None:
        return "unknown"
    return reports.integer(round(value)) if abs(value) >= 1000 else f"{value:.3g}"
