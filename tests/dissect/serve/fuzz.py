"""Hostile requests to a running server: `python -m tests.dissect.serve.fuzz [--requests 5000] [--seed 0]`.

Every request goes over a socket, byte by byte as made: mutated questions of every table, injections, ways out of the
folder, foreign hosts, broken HTTP. Counted are answers of 5xx, answers that never came, and what changed on the disk.
"""

import argparse
import hashlib
import random
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

WORDS = [
    "dog", "cat", "red-c", "first", "second", "unfinished", "conv", "fc", "0", "1", "-1", "007", "1e9", "nan", "inf",
    "all",     "9" * 30, "", " ", "%", "%00", "%ff%fe", "\u202e", "אבג", "😀" * 20, "a" * 3000, "'", '"', "' OR 1=1 --",
    "'; DROP TABLE runs; --", "1; ATTACH '/tmp/x' AS y", "<script>alert(1)</script>", "{{7*7}}", "${jndi:ldap://x}",
    "../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/", "\\\\host\\share", "CON", "\r\nX-Injected: 1", "NULL",
    "true", "no", "sound", "dead", "object", "color", "first:conv", "*", "[", "]", "__proto__",
]  # fmt: skip
NAMES = [
    "run", "layer", "unit", "concept", "category", "min_iou", "max_iou", "rank", "detectors", "search", "state",
    "complete", "image", "excluded", "limit", "after", "one", "other", "units", "sql", "seconds", "constructor", "",
    "run[]", "min-iou",
]  # fmt: skip
STATEMENTS = [
    "SELECT * FROM v_units", "SELECT 1; DROP TABLE runs", "DELETE FROM runs", "ATTACH 'x' AS y", "PRAGMA query_only=0",
    "SELECT load_extension('x')", "WITH t(n) AS (SELECT 1) SELECT * FROM t", "SELECT randomblob(999999999)",
    "SELECT CAST(x'ff' AS TEXT)", "SELECT 9e999, -9e999, NULL, x'00'", "VACUUM INTO '/tmp/stolen'", "SELECT", "(((",
    "SELECT " + "+".join("1" * 3000), "SELECT * FROM runs r, layers l, units u, units v, units w, units x",
    "SELECT " + "(" * 2000, "SELECT zeroblob(2000000000)", "SELECT printf('%.999999999f', 1)", "SELECT '\0'",
    "INSERT INTO meta VALUES('a','b')", "SELECT * FROM sqlite_master", "SELECT 1 AS a, 2 AS a, 'x' AS iou",
]  # fmt: skip
KINDS = ["", ".json", ".csv", ".tsv", ".ndjson", ".markdown", ".table", ".arrow", ".parquet", ".pdf", ".%00", "."]
TABLES = ["runs", "layers", "units", "facets", "concepts", "images", "diff", "sql", "openapi.json", "nothing"]
PATHS = [
    "/", "/api", "/metrics", "/reports/", "/reports/first/index.html", "/reports/first/index.json",
    "/reports/first/index.csv",
    "/reports/first/layers/0-conv/index.csv", "/reports/first/layers/99-x/index.csv", "/reports/first/concepts/1.json",
    "/reports/first/concepts/999999999.csv", "/reports/index.json", "/reports/../dissect.sqlite",
    "/reports/.%2e/x.html",
    "/docs", "/redoc", "//evil.example/", "/api//units", "/reports/first", "/%", "/reports/%c0%ae%c0%ae/x.html", "*",
]  # fmt: skip
METHODS = ["GET"] * 90 + ["HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "G\x00T", "get", ""]
HEADERS = [
    "If-None-Match: *", 'If-None-Match: "x", W/"y"', "Range: bytes=0-", "Range: bytes=" + ",".join(["0-"] * 500),
    "Range: bytes=5-1", "Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Content-Length: 0",
    "Accept: */*;q=x", "Content-Length: -1", "Content-Length: 99999999999", "Transfer-Encoding: chunked",
    "Expect: 100-continue",
    "Cookie: " + "a" * 4000, "X-Forwarded-Host: evil", "If-Modified-Since: yesterday", "Upgrade: websocket", ": empty",
    "Host: two", "If-Range: x",
]  # fmt: skip


def address(rng: random.Random) -> str:
    """The target of a request."""
    if rng.random() < 0.25:
        path = rng.choice(PATHS)
        return path if rng.random() < 0.6 else path + "?" + rng.choice(NAMES) + "=" + _coded(rng, rng.choice(WORDS))
    if rng.random() < 0.1:
        return "/reports/" + "/".join(_coded(rng, rng.choice(WORDS)) for _ in range(rng.randint(1, 4)))
    table = rng.choice(TABLES)
    pairs = []
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8, 70))):
        pairs.append(f"{_coded(rng, rng.choice(NAMES))}={_coded(rng, rng.choice(WORDS))}")
    if table == "sql":
        pairs.append("sql=" + _coded(rng, rng.choice(STATEMENTS)))
        if rng.random() < 0.5:
            pairs = pairs[-1:]
        pairs.append("seconds=0.05")
    if table == "diff" and rng.random() < 0.6:
        pairs = ["one=first", "other=" + rng.choice(("second", "first", "unfinished", "x")), *pairs[:1]]
    return f"/api/{table}{rng.choice(KINDS)}?{'&'.join(pairs)}"


def request(rng: random.Random) -> bytes:
    """One request as bytes."""
    host = "127.0.0.1" if rng.random() < 0.95 else rng.choice(("evil.example", "", "[", "localhost\0", "a b"))
    lines = [f"{rng.choice(METHODS)} {address(rng)} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += rng.sample(HEADERS, rng.choice((0, 0, 0, 1, 1, 2)))
    raw = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogatepass")
    if rng.random() < 0.05:
        place = rng.randrange(len(raw) - 6)  # the end stays: a request without one may be waited for
        raw = raw[:place] + bytes([rng.randrange(256)]) + raw[place + rng.randint(0, 2) :]
    return raw + (b"x" * rng.randrange(3000) if rng.random() < 0.05 else b"")


def _coded(rng: random.Random, text: str) -> str:
    return quote(text, safe="") if rng.random() < 0.9 else text.replace(" ", "+")


def status(port: int, raw: bytes, seconds: float = 20.0) -> int:
    """Status of the answer; 0 where the connection was closed without one, -1 where none came in time."""
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        try:
            connection.sendall(raw)
            found = b""
            while part := connection.recv(1 << 16):
                found += part[: max(0, 100 - len(found))]
        except TimeoutError:
            return -1
        except OSError:
            return 0
    return int(found[9:12]) if found.startswith(b"HTTP/1.1 ") else 0


def picture(folder: Path) -> dict[str, str]:
    """Every path below a folder with its time and content."""
    return {
        str(path.relative_to(folder)): f"{path.stat().st_mtime_ns} "
        + (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in sorted(folder.rglob("*"))
    }


@contextmanager
def running(folder: Path) -> Iterator[int]:
    """A server of the workspace in a thread; its port."""
    import uvicorn

    from dissect.serve import listening
    from dissect.serve.app import application
    from dissect.serve.limits import Limits
    from dissect.workspace import Workspace

    with listening.bound("127.0.0.1", 0) as opened:
        server = uvicorn.Server(listening.settings(application(Workspace.at(folder), (), Limits(seconds=5.0))))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
        thread.start()
        while not server.started:
            thread.join(0.01)
        try:
            yield opened.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


def attack(folder: Path, count: int, seed: int) -> tuple[Counter[int], list[bytes], bool]:
    """Statuses of `count` requests, the requests that were answered with 5xx or never, whether the disk changed."""
    rng, before = random.Random(seed), picture(folder)
    seen: Counter[int] = Counter()
    bad = []
    with running(folder) as port:
        for _ in range(count):
            raw = request(rng)
            found = status(port, raw)
            seen[found] += 1
            if found < 0 or found >= 500:
                bad.append(raw)
        alive = status(port, b"GET /api/runs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    if alive != 200:
        bad.append(b"the server does not answer any more")
    return seen, bad, picture(folder) != before


def main() -> None:
    from tests.dissect.serve.workspace import made

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen, bad, changed = attack(made(Path(folder)), options.requests, options.seed)
    for code, number in sorted(seen.items()):
        print(f"{number:6d}  {code or 'closed'}")
    for raw in bad[:10]:
        print("BAD", raw[:300])
    disk = "CHANGED" if changed else "untouched"
    print(f"{options.requests} requests, {len(bad)} answered with 5xx or not at all, disk {disk}")
    raise SystemExit(bool(bad) or changed)


if __name__ == "__main__":
    main()
