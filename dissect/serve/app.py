"""The application: guard around routes, errors as JSON, OpenAPI, metrics."""

import time
from collections.abc import Iterable

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from dissect.errors import DissectError
from dissect.prometheus import CONTENT_TYPE, exposition
from dissect.serve import metrics, pages, tables
from dissect.serve.answer import failure
from dissect.serve.guard import Application, Guard, Message, Receive, Scope, Send
from dissect.serve.limits import Limits
from dissect.workspace import Workspace

ABOUT = """\
Read-only. Filters are those of `dissect query`; a suffix chooses the format (`/api/units.csv`); `next` continues a
page. Answers carry an ETag that holds until the database changes.
"""


def application(workspace: Workspace, hosts: Iterable[str] = (), limits: Limits = Limits()) -> Guard:  # noqa: B008
    """The server of a workspace. `hosts`: names it may be called by besides localhost and IP addresses."""
    app = FastAPI(
        title="dissect", version="1", description=ABOUT, openapi_url="/api/openapi.json", docs_url=None, redoc_url=None
    )
    desk = tables.Desk(workspace, limits)
    traffic = metrics.Traffic()
    app.include_router(tables.router(desk))
    app.include_router(pages.router(desk))

    @app.get("/api", include_in_schema=False)
    def api() -> Response:
        paths = [path for path in app.openapi()["paths"] if path.startswith("/api/") and "{" not in path]
        return JSONResponse({"openapi": "/api/openapi.json", "tables": paths})

    @app.get("/metrics", summary="Prometheus text", response_class=Response)
    def figures() -> Response:
        with desk.store() as store:
            found = [sample for source in metrics.SOURCES for sample in source(store)]
        return Response(exposition([*found, *traffic.samples()]), media_type=CONTENT_TYPE)

    @app.exception_handler(DissectError)
    def ours(_: Request, error: DissectError) -> Response:
        return failure(error)

    @app.exception_handler(HTTPException)
    def known(_: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    return Guard(_counted(app, traffic), hosts, limits)


def _counted(inner: Application, traffic: metrics.Traffic) -> Application:
    """The application, with every answer counted."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        start = time.perf_counter()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                traffic.count(int(message["status"]), time.perf_counter() - start)
            await send(message)

        await inner(scope, receive, noted)

    return counted
