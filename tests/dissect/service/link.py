"""A network namespace and a cable to it that can be pulled, where this machine lets us make them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

HERE, THERE = "203.0.113.1", "203.0.113.2"  # addresses that are nobody's (RFC 5737)


@dataclass(frozen=True)
class Link:
    """Another network namespace, and the cable to it."""

    name: str

    @property
    def cable(self) -> str:
        return f"{self.name}-a"

    def put(self, state: str) -> None:
        """Plug the cable in ("up") or pull it ("down")."""
        _ip("link", "set", self.cable, state)


@contextmanager
def cable() -> Iterator[Link]:
    """A link for a with block; skips the test where none can be made."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` here to make network namespaces")
    made = Link(f"dis{os.getpid() % 100_000}")
    try:
        _ip("netns", "add", made.name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        _ip("link", "add", made.cable, "type", "veth", "peer", "name", "there", "netns", made.name)
        _ip("addr", "add", f"{HERE}/30", "dev", made.cable)
        _ip("-n", made.name, "addr", "add", f"{THERE}/30", "dev", "there")
        _ip("-n", made.name, "link", "set", "there", "up")
        _ip("-n", made.name, "link", "set", "lo", "up")
        made.put("up")
        yield made
    finally:
        _ip("netns", "del", made.name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
