"""The folders of pages as they lie on disk, and each page as JSON and CSV.

`index.csv` beside `index.html` leads to the rows that the page shows: a question to /api. Pages that are no such
question (comparisons) are read for their tables.
"""

import csv
import io
import re
from pathlib import Path
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse

from dissect.publish import report_folder
from dissect.serve.answer import MEDIA, matches, unchanged
from dissect.serve.page_tables import page_tables
from dissect.serve.tables import Desk
from dissect.store import RunRecord, Store

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
TWINS = (".json", ".csv")
_LAYER = re.compile(r"layers/(\d+)-[^/]*/(index|labels|plain-\d+)")


def router(desk: Desk) -> APIRouter:
    """The routes / and /reports."""
    routes = APIRouter()
    root = desk.workspace.root / "reports"

    @routes.get("/", include_in_schema=False)
    def front() -> Response:
        return RedirectResponse("/reports/")

    @routes.get("/reports/{path:path}", summary="Pages; .json or .csv instead of .html gives their rows")
    def page(request: Request, path: str) -> Response:
        if path.endswith("/") or not path:
            path += "index.html"
        file = inside(root, path)
        if file is None and path.endswith(TWINS):
            stem, suffix = path.rsplit(".", 1)
            html = inside(root, stem + ".html")
            return _missing(path) if html is None else _twin(desk, stem, suffix, html)
        if file is None:
            if inside(root, path + "/index.html") is not None:
                return RedirectResponse(f"{request.url.path}/")
            return _missing(path)
        found = file.stat()
        tag = f'"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"'
        if matches(request, tag):
            return unchanged(tag)
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        return FileResponse(file, media_type=TYPES[file.suffix], headers=headers)

    return routes


def inside(root: Path, path: str) -> Path | None:
    """The file of a page below the root, or None: no such file, no file of a page, or a way out of the root."""
    parts = path.split("/")
    if "\0" in path or "\\" in path or any(not part or part.startswith(".") for part in parts):
        return None
    if len(path) > 1000 or Path(path).suffix not in TYPES:
        return None
    try:
        found = root.joinpath(*parts).resolve(strict=True)
        usable = found.is_relative_to(root.resolve()) and found.is_file()
    except (OSError, RuntimeError, ValueError):
        return None
    return found if usable else None


def _missing(path: str) -> Response:
    end = ": `dissect report RUN` writes the pages of a run" if path.endswith("index.html") else ""
    return JSONResponse({"error": f"no page /reports/{path[:200]}{end}"}, 404)


def _twin(desk: Desk, stem: str, suffix: str, html: Path) -> Response:
    """The rows of a page: where the API has them, or the tables of the page itself."""
    with desk.store() as store:
        address = question(store, stem, suffix)
    if address is not None:
        return RedirectResponse(address)
    tables = page_tables(html.read_text(encoding="utf-8"))
    if suffix == "json":
        return JSONResponse({"tables": [vars(table) for table in tables]})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for table in tables:
        writer.writerow(["# " + table.name])
        writer.writerows([table.columns, *table.rows, []] if table.columns else [*table.rows, []])
    return Response(out.getvalue(), media_type=MEDIA["csv"])


def question(store: Store, stem: str, suffix: str) -> str | None:
    """The address in /api of what a page shows; None where the page is no such question."""
    if stem == "index":
        return f"/api/runs.{suffix}"
    folder, _, rest = stem.partition("/")
    run = next((run for run in store.runs() if report_folder(store, run).name == folder), None)
    if run is None:
        return None
    if rest == "index":
        return _address("layers", suffix, run=run.id)
    everything = {"limit": "all"} if suffix == "csv" else {}
    concept = re.fullmatch(r"concepts/(\d{1,9})", rest)
    if concept:
        names = {c.number: c.name for c in store.concepts(run.id)}
        name = names.get(int(concept[1]))
        return None if not name else _address("units", suffix, run=run.id, concept=name, detectors="1", **everything)
    layer = _LAYER.fullmatch(rest)
    if layer is None:
        return None
    return _of_layer(store, run, int(layer[1]), layer[2], suffix, everything)


def _of_layer(
    store: Store, run: RunRecord, position: int, page: str, suffix: str, everything: dict[str, str]
) -> str | None:
    found = next((item for item in store.layers(run.id) if item.position == position), None)
    if found is None:
        return None
    if page == "labels":
        return _address("concepts", suffix, run=run.id, layer=found.name, detectors="1", limit="1000")
    if page == "index":
        return _address("units", suffix, run=run.id, layer=found.name, **everything)
    return None


def _address(what: str, suffix: str, **parameters: str) -> str:
    return f"/api/{what}.{suffix}?{urlencode(parameters)}"
