"""The gallery of a workspace: everything that the synthesis commands made, from the database."""

from pathlib import Path
from typing import Any

import reports
from dissect.publish.facts import unfoldered
from dissect.publish.synthesis import LARGE, measured, reader, short
from dissect.publish.workspace import publish_workspace
from dissect.store import Store, syntheses
from dissect.store.syntheses import PictureRecord, SynthesisRecord
from reports.gallery import ASIDE, GalleryEntry, GalleryPage, GalleryPicture
from reports.pages import Fact

TITLES = {
    "invert": "Inversion",
    "maximize": "Maximum impulses",
    "dream": "Dream",
    "adversarial": "Smallest perturbations",
    "illusion": "Universal illusions",
    "fool": "Fooling patterns",
    "fool-gradient": "Fooling patterns by gradient",
    "fool-retrain": "Retraining with a fooling class",
}
_SUFFIXES = (".png", ".svg", ".gif", ".webp", ".mp4")
_HUSHED = ("seconds", "out", "page")


def publish_gallery(store: Store, title: str = "Synthesised pictures") -> Path:
    """Write reports/_gallery/index.html of the workspace, newest synthesis first; the first time also the page of the
    workspace, which links to it."""
    folder = store.workspace.root / "reports"
    linked = (folder / ASIDE / "index.html").is_file()
    entries = tuple(_entry(store, record) for record in reversed(syntheses.every(store)))
    index = reports.write_gallery(GalleryPage(title, entries), folder)
    if not linked:
        publish_workspace(store)
    return index


def _entry(store: Store, record: SynthesisRecord) -> GalleryEntry:
    folder = syntheses.folder(store, record)
    found = [one for one in syntheses.pictures(store, record.id) if one.path.endswith(_SUFFIXES)]
    drawn = [(one, one.kind.endswith(LARGE)) for one in found]
    made = [_picture(folder, one) for one, large in drawn if not large]
    few = len(made) <= 12  # then the pictures with their measures stand for the sheet
    layers = sorted({one.layer for one in found if one.layer not in (None, "output")}, key=str)
    where = f", {layers[0]}" if len(layers) == 1 else f", {len(layers)} layers" if layers else ""
    return GalleryEntry(
        f"s{record.id[:10]}",
        f"{TITLES.get(record.command, record.command)}: {unfoldered(record.model)}{where}",
        _lead(record),
        tuple(Fact(key.replace("_", " "), unfoldered(value)) for key, value in _facts(record)),
        tuple(_picture(folder, one) for one, large in drawn if large and not (few and one.kind == "maximum-sheet")),
        tuple(made),
    )


def _picture(folder: Path, record: PictureRecord) -> GalleryPicture:
    layer = None if record.layer and (record.target or "").startswith(record.layer) else record.layer
    title = ", ".join(str(part) for part in (layer, record.target, record.image) if part and part != "output")
    if record.restart:
        title += f", restart {record.restart}"
    title = title or record.kind.replace("-", " ")
    return GalleryPicture(record.path, title, measured(record), reader(folder / record.path))


def _lead(record: SynthesisRecord) -> str:
    f = record.facts
    if record.command == "invert" and f.get("depth_rank_correlation") is not None:
        return (
            f"The image error grows with depth: rank correlation {short(f['depth_rank_correlation'])} over "
            f"{reports.plural(len(f['layers']), 'layer')}, {reports.plural(len(f['images']), 'photo')}."
        )
    if record.command == "maximize":
        judged = [one["beats_all"] for one in f["targets"] if one["beats_all"] is not None]
        return f"{sum(judged)} of {len(judged)} beat every photo shown, under fresh jitter." if judged else ""
    if record.command == "adversarial" and f.get("success") is not None:
        return (
            f"{100 * f['success']:.0f} % of the photos are seen as another class, "
            f"{100 * f['quantised_success']:.0f} % also after rounding to bytes."
        )
    if "median_confidence" in f:
        return f"Median confidence {short(f['median_confidence'])}."
    return ""


def _facts(record: SynthesisRecord) -> list[tuple[str, str]]:
    facts = [("model", record.model), ("weights sha256", record.weights_sha256 or "none: random weights or unknown")]
    facts += [("seed", str(record.seed)), ("synthesis", record.id)]
    facts += [(key, _told(value)) for key, value in record.parts.items()]
    scalars = {key: value for key, value in record.facts.items() if isinstance(value, bool | int | float | str)}
    return facts + [(k, _told(v)) for k, v in scalars.items() if k not in {*_HUSHED, "model", "command", "seed"}]


def _told(value: Any) -> str:
    if isinstance(value, dict):
        kind = value.get("kind")
        rest = "; ".join(f"{key} {_told(inner)}" for key, inner in value.items() if key != "kind" and inner is not None)
        return f"{kind} ({rest})" if kind and rest else str(kind or rest)
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
