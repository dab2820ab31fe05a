"""The page of a workspace: all runs, and where each concept is detected in any of them."""

import hashlib
from pathlib import Path

from . import text
from .compare import put
from .environment import STATIC, page, static
from .folder import replaced
from .pages import WorkspaceConcept, WorkspacePage

ASIDE = "_workspace"  # folder beside the reports of the runs


def concept_file(concept: WorkspaceConcept) -> str:
    """File of a concept's page: readable, and different for different names."""
    key = hashlib.sha256(f"{concept.category}\0{concept.name}".encode()).hexdigest()[:8]
    return f"{text.slug(concept.name)}-{key}.html"


def write_workspace(page_: WorkspacePage, out: Path) -> Path:
    """Write `out`/index.html and `out`/_workspace; other folders in `out`, the runs' reports, are left alone."""
    order = sorted(page_.concepts, key=lambda c: (text.shown(c.name, c.category), c.category))
    index = [
        {"name": text.shown(c.name, c.category), "category": c.category, "link": f"{ASIDE}/{concept_file(c)}",
         "runs": len({s.run for s in c.sightings}), "units": sum(s.units for s in c.sightings)}
        for c in order
    ]  # fmt: skip
    with replaced(out / ASIDE) as new:
        for name in STATIC:
            if name != "report.js":
                (new / name).write_bytes(static(name))
        for concept in order:
            html = page("sightings.html", page=page_, concept=concept, name=text.shown(concept.name, concept.category),
                        root="", up="../")  # fmt: skip
            (new / concept_file(concept)).write_text(html, encoding="utf-8")
    put(out / "index.html", page("workspace.html", page=page_, concepts=index, root=f"{ASIDE}/").encode())
    return out / "index.html"
