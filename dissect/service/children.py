"""Child processes, forked from one that has imported everything and done nothing: torch alone takes two seconds.

What a child does to its memory, its descriptors or itself, it does to nobody else. It dies with its worker.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from dissect.service import attempt

_WARM = ["dissect.service.warm"]
_TAIL = 1 << 16
"""Bytes of what a child wrote last that are looked at."""
_LONGEST = 1000
_VANISHED = 255
"""What multiprocessing calls the exit of a child whose end nobody saw, because the process that forked it is gone."""


@dataclass(frozen=True)
class End:
    """How a child ended. code: its exit code, negative for a signal; complaint: the last line that it wrote."""

    code: int
    result: dict[str, Any]
    complaint: str


def run_child(task: dict[str, Any], stop: Callable[[], bool], every: float = 0.2) -> End | None:
    """Have a child do a task of `attempt`; None where `stop`, asked every so many seconds, had it killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_WARM)
    results, result_end = context.Pipe(duplex=False)
    lines, line_end = context.Pipe(duplex=False)
    child = context.Process(target=attempt.main, args=(task, result_end, line_end))
    with results, lines:
        with result_end, line_end:
            try:
                child.start()
            except (EOFError, OSError):  # the process that forks is gone; the next start makes another
                return End(-signal.SIGKILL, {}, "")
        said, sources = b"", [child.sentinel, lines.fileno()]
        while child.sentinel not in (ready := wait(sources, every)):
            if lines.fileno() in ready:
                said, sources = _more(lines.fileno(), said, sources)
            if stop():
                child.kill()
                child.join()
                return None
        child.join()
        while lines.poll() and lines.fileno() in sources:
            said, sources = _more(lines.fileno(), said, sources)
        code = -signal.SIGKILL if child.exitcode in (None, _VANISHED) else child.exitcode
        result = attempt.received(results) if code == 0 else {}
    child.close()
    complaints = said.decode(errors="replace").strip().splitlines() if code > 0 else []
    return End(code, result, _plain(complaints[-1].removeprefix("dissect: ")) if complaints else "")


def _more(source: int, said: bytes, sources: list[int]) -> tuple[bytes, list[int]]:
    """The tail of what was said so far, and what is left to wait for: not `source` once it has ended."""
    part = os.read(source, _TAIL)
    return (said + part)[-_TAIL:], sources if part else [other for other in sources if other != source]


def _plain(line: str) -> str:
    """A line that a terminal and a log can show: whoever wrote it may have meant to steer them."""
    return "".join(character if character.isprintable() else "?" for character in line[:_LONGEST])
