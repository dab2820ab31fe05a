"""Rows as a response: format, validator, link to the next page, and errors as the user should read them."""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from dissect.errors import DissectError, RetryLater, SpecError, TooSlow
from dissect.query import formats

MEDIA = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
    "markdown": "text/markdown; charset=utf-8",
    "table": "text/plain; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}
STREAMED = ("csv", "tsv", "ndjson")


@dataclass(frozen=True)
class Answer:
    """Rows of a table. `next` continues them, `truncated` says that more were there."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    next: str | None = None
    truncated: bool = False


def check_kind(kind: str) -> str:
    """The format, if there is such a one. Raises SpecError."""
    if kind not in MEDIA:
        raise SpecError(f"format {kind[:40]!r} is unknown: expected one of {', '.join(MEDIA)}")
    return kind


def respond(request: Request, kind: str, answer: Answer) -> Response:
    """The rows in a format. JSON holds them with `next` and `truncated`; elsewhere a Link header and
    X-Truncated say the same."""
    headers = {}
    if answer.next is not None:
        address = request.url.include_query_params(after=answer.next)
        headers["Link"] = f'<{address.path}?{address.query}>; rel="next"'
    if answer.truncated:
        headers["X-Truncated"] = "1"
    if kind == "json":
        rows = [{name: formats.plain(value) for name, value in zip(answer.columns, row)} for row in answer.rows]
        found = {"columns": list(answer.columns), "rows": rows, "next": answer.next, "truncated": answer.truncated}
        return Response(json.dumps(found, allow_nan=False) + "\n", media_type=MEDIA[kind], headers=headers)
    with io.BytesIO() as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="") as text:
        formats.write(text, kind, answer.columns, answer.rows)
        text.flush()
        return Response(raw.getvalue(), media_type=MEDIA[kind], headers=headers)


def stream(kind: str, columns: Sequence[str], rows: Iterator[Sequence[Any]], most: int) -> Response:
    """A whole table, written as it is read. Raises SpecError for a format that is no stream of lines.

    After `most` bytes one line says so, in a form that no reader of such a table takes for a row.
    """
    if kind not in STREAMED:
        raise SpecError(f"limit=all is possible as {', '.join(STREAMED)}: expected one of them, not {kind}")

    def lines() -> Iterator[bytes]:
        sent, head = 0, io.StringIO()
        if kind != "ndjson":
            formats.write(head, kind, columns, ())
        yield head.getvalue().encode()
        try:
            for row in rows:
                part = io.StringIO()
                formats.write(part, kind, columns, (row,))
                content = part.getvalue().encode()
                if kind != "ndjson":  # without the line of names that stands there already
                    content = content[len(head.getvalue().encode()) :]
                sent += len(content)
                if sent > most:
                    yield f"error: truncated after {most} bytes, narrow the filter\n".encode()
                    return
                yield content
        except DissectError as error:
            yield f"error: {error}\n".encode()

    return StreamingResponse(_blocks(lines()), media_type=MEDIA[kind])


def _blocks(parts: Iterator[bytes], size: int = 1 << 16) -> Iterator[bytes]:
    """The same bytes in larger pieces."""
    held = bytearray()
    for part in parts:
        held += part
        if len(held) >= size:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def etag(request: Request, state: str) -> str:
    """A validator of what this address says while the database is in this state."""
    seen = f"{state}\n{request.url.path}\n{request.url.query}"
    return f'"{hashlib.sha256(seen.encode()).hexdigest()[:32]}"'


def matches(request: Request, tag: str) -> bool:
    """Whether the client has what the validator stands for."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or tag in [part.strip().removeprefix("W/") for part in given.split(",")]


def unchanged(tag: str) -> Response:
    """304."""
    return Response(status_code=304, headers={"ETag": tag, "Cache-Control": "no-cache"})


def failure(error: DissectError) -> Response:
    """An error of ours: 400 for what was asked wrongly or for too much, 503 for what may go better later."""
    status = 400 if isinstance(error, SpecError | TooSlow) else 503 if isinstance(error, RetryLater) else 500
    headers = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse({"error": str(error)}, status, headers)
