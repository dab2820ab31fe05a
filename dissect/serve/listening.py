"""The socket and the server on it."""

import ipaddress
import socket
from typing import Any

import uvicorn

from dissect.errors import SpecError

CONNECTIONS = 64  # at once; more are told to come back


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens at an address. Raises SpecError where it cannot be had."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise SpecError(f"cannot listen on {host}: {error}") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(CONNECTIONS)  # from here on nobody who reads the address is turned away
    except (OSError, OverflowError) as error:
        made.close()
        raise SpecError(f"cannot listen on {host} port {port}: {error}; --port 0 takes any that is free") from error
    return made


def address(opened: socket.socket) -> str:
    """The address to open in a browser."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def private(opened: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(opened.getsockname()[0].split("%")[0]).is_loopback


def settings(application: Any) -> uvicorn.Config:
    """How the server runs: quiet, without websockets, with a limit on connections."""
    return uvicorn.Config(
        application, log_level="error", server_header=False, limit_concurrency=CONNECTIONS, timeout_keep_alive=5,
        h11_max_incomplete_event_size=64 << 10, lifespan="off", ws="none",
    )  # fmt: skip


def run(application: Any, opened: socket.socket) -> None:
    """Serve until interrupted."""
    uvicorn.Server(settings(application)).run(sockets=[opened])
