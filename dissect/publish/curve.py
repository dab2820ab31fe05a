"""The page of a rotation curve."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import reports
from dissect.publish.facts import unfoldered
from dissect.publish.run import report_folder
from dissect.publish.workspace import publish_workspace
from dissect.store import Store
from reports import curve


def publish_curve(store: Store, points: Sequence[Mapping[str, Any]], out: Path | None = None) -> Path:
    """Write the curve through points (objects with series, alpha, seed, run, detectors, unique_detectors,
    unique_concepts; the first is the layer as it is); default folder: reports/curve-<hash>, and
    then the page of the workspace lists it. Returns its index."""
    shown = []
    for point in points:
        folder = report_folder(store, store.get_run(point["run"]))
        link = f"../{folder.name}/index.html" if out is None and (folder / "index.html").is_file() else None
        names = ("series", "alpha", "seed", "run", "detectors", "unique_detectors", "unique_concepts")
        shown.append(curve.CurvePoint(link=link, **{name: point[name] for name in names}))
    record = store.get_run(points[0]["run"])
    (layer,) = store.layers(record.id)
    page = curve.CurvePage(
        unfoldered(record.model or record.source), layer.name, record.data_name, record.images, record.convention,
        layer.units, tuple(shown),
    )  # fmt: skip
    index = reports.write_curve(page, out or store.workspace.report_folder(f"curve-{curve.digest(page)}"))
    if out is None:
        publish_workspace(store)
    return index
