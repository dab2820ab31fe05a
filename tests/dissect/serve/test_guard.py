"""What is refused before anything looks at it, and what every answer carries."""

from pathlib import Path
from typing import Any

import pytest

from dissect.serve.guard import HEADERS, Guard
from tests.dissect.serve.conftest import make_client

GOOD = ["127.0.0.1", "127.0.0.1:8712", "localhost:1", "LOCALHOST", "localhost.", "[::1]:8712", "192.168.1.7:8712"]
BAD = [
    "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8712", "evil@127.0.0.1:80/", "", "127.0.0.1#",
    "[::1", "localhost:8712/x", "a b", "0x7f.1.evil",
]  # fmt: skip


@pytest.mark.parametrize("host", GOOD)
def test_known_hosts(client: Any, host: str) -> None:
    assert client.get("/api/runs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", BAD)
def test_a_foreign_name_may_have_been_rebound(client: Any, host: str) -> None:
    assert client.get("/api/runs", headers={"Host": host}).status_code == 421


def test_names_can_be_allowed(served: Path) -> None:
    client = make_client(served, hosts=("Results.example.",))
    assert client.get("/api/runs", headers={"Host": "results.example:80"}).status_code == 200
    assert client.get("/api/runs", headers={"Host": "other.example"}).status_code == 421


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Origin": "http://[1"}, 403),
        ({"Origin": "http://127.0.0.1:8712"}, 200), ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
    ],
)  # fmt: skip
def test_pages_of_other_sites(client: Any, headers: dict, status: int) -> None:
    assert client.get("/api/runs", headers=headers).status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
def test_it_only_reads(client: Any, method: str) -> None:
    answer = client.request(method, "/api/runs")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_head_is_get_without_the_body(client: Any) -> None:
    whole, head = client.get("/api/runs"), client.head("/api/runs")
    assert head.content == b""
    assert {k: v for k, v in head.headers.items() if k != "date"} == dict(whole.headers)
    assert head.headers["content-length"] == str(len(whole.content))


def test_bodies_and_long_addresses(client: Any) -> None:
    assert client.request("GET", "/api/runs", content=b"x" * 100).status_code == 200
    assert client.request("GET", "/api/runs", content=b"x" * 70_000).status_code == 413
    assert client.request("GET", "/api/runs", content=iter([b"x"])).status_code == 413  # chunked
    assert client.request("GET", "/api/runs", headers={"Content-Length": "1e3"}).status_code == 413
    assert client.get("/api/units?search=" + "a" * 20_000).status_code == 414


@pytest.mark.parametrize("path", ["/", "/api/runs", "/nowhere", "/api/units?limit=0", "/reports/first/index.html"])
def test_every_answer_is_dressed(client: Any, path: str) -> None:
    found = client.get(path, follow_redirects=False).headers
    for name, value in HEADERS:
        assert found[name.decode()] == value.decode()


def test_websockets_are_not_spoken(client: Any) -> None:
    """The guard says nothing to what is not HTTP: the inner application never sees it."""
    seen: list[Any] = []

    async def inner(*_: Any) -> None:
        seen.append(1)

    with pytest.raises(StopIteration):  # it ends without awaiting anything
        Guard(inner)({"type": "websocket"}, None, None).send(None)  # type: ignore[arg-type]
    assert not seen
