"""What every request passes before anything looks at it, and what every answer carries.

A page of another site can make a browser send requests to 127.0.0.1, and by DNS rebinding even read the answers: its
name resolves to our address after the page was loaded. Such requests carry the foreign name as Host, or an Origin or
Sec-Fetch-Site that says where they come from. An IP address as Host cannot be rebound.
"""

import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from dissect.serve.limits import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

METHODS = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; img-src 'self' blob:; style-src 'self'; script-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


class Guard:
    """An ASGI application around another: reading only, from hosts that are known, with bodies of a limited size."""

    def __init__(self, inner: Application, hosts: Iterable[str] = (), limits: Limits = Limits()) -> None:  # noqa: B008
        """`hosts`: names by which this server may be called besides localhost and IP addresses."""
        self.inner, self.limits = inner, limits
        self.hosts = {"localhost", *(host.lower().rstrip(".") for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.inner(scope, receive, send)
            return  # a websocket that nobody accepts is closed by the server
        wanted = str(scope["method"])
        send = _dressed(send, silent=wanted == "HEAD")
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        if wanted == "HEAD":
            scope = {**scope, "method": "GET"}
        await self.inner(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and message for a request that goes no further."""
        if scope["method"] not in METHODS:
            return 405, f"{str(scope['method'])[:20]} is not possible: this server only reads (GET, HEAD)"
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        host = headers.get(b"host", [])
        if len(host) != 1 or not self.knows(_text(host[0])):
            return 421, "unknown Host: use localhost or the address, or start the server with --allow-host NAME"
        origin = headers.get(b"origin")
        if origin is not None and any(not _same(_text(value), _text(host[0])) for value in origin):
            return 403, "requests from pages of other sites are refused (Origin)"
        site, mode = (_text(headers.get(name, [b""])[0]) for name in (b"sec-fetch-site", b"sec-fetch-mode"))
        if site in ("cross-site", "same-site") and mode != "navigate":
            return 403, "requests from pages of other sites are refused (Sec-Fetch-Site)"
        if len(scope.get("query_string", b"")) > self.limits.query_bytes:
            return 414, f"the query is longer than {self.limits.query_bytes} bytes"
        length = _text(headers.get(b"content-length", [b"0"])[0])
        if b"transfer-encoding" in headers or not length.isdigit() or int(length[:19]) > self.limits.body_bytes:
            return 413, "a request for reading needs no body"
        return None

    def knows(self, host: str) -> bool:
        """Whether the value of a Host header (with or without a port) names this server."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if not name or any(character in host for character in "/?#@\\"):
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.rstrip(".") in self.hosts
        return True


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip()


def _same(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _dressed(send: Send, silent: bool) -> Send:
    """`send` that adds HEADERS where they are not set, and keeps the body of an answer to HEAD back."""

    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message["headers"]}
            added = [pair for pair in HEADERS if pair[0] not in given]
            message = {**message, "headers": [*message["headers"], *added]}
        elif message["type"] == "http.response.body" and silent:
            message = {**message, "body": b""}
        await send(message)

    return dressed


async def _refuse(send: Send, status: int, text: str) -> None:
    body = json.dumps({"error": text}).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 405:
        headers.append((b"allow", ", ".join(METHODS).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
