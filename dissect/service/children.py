"""Child processes, forked from one that has imported everything and done nothing: torch alone takes two seconds.

What a child does to its memory, its descriptors or itself, it does to nobody else. It dies with its worker.
"""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
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
    """How a task ended. code: 0, or the exit code of the child that it ended, negative for a signal; complaint: the
    last line that the child wrote."""

    code: int
    result: dict[str, Any]
    complaint: str


class Child:
    """Does tasks of `attempt` in another process, for a with block: those of one run in the same one, as long as none
    fails."""

    def __init__(self) -> None:
        self._running: _Running | None = None
        self._run = ""

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def do(self, task: dict[str, Any], stop: Callable[[], bool], every: float = 0.2) -> End | None:
        """How a task ended; None where `stop`, asked every so many seconds, had the process killed."""
        if self._run != task["run"]:
            self.close()
        try:
            self._running, self._run = self._running or _Running(), task["run"]
        except (EOFError, OSError):  # the process that forks is gone; the next start makes another
            return End(-signal.SIGKILL, {}, "")
        end = self._running.do(task, stop, every)
        if end is None or end.code != 0:
            self.close()
        return end

    def close(self) -> None:
        """Let the process go, and its memory."""
        if self._running is not None:
            self._running.close()
        self._running = None


class _Running:
    """A process and the pipes to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_WARM)
        with ExitStack() as ends:
            tasks, self._tasks = context.Pipe(duplex=False)
            self._results, results = context.Pipe(duplex=False)
            self._lines, lines = context.Pipe(duplex=False)
            theirs = [ends.enter_context(end) for end in (tasks, results, lines)]
            self._process = context.Process(target=attempt.main, args=theirs)
            try:
                self._process.start()
            except (EOFError, OSError):
                self._hang_up()
                raise

    def do(self, task: dict[str, Any], stop: Callable[[], bool], every: float) -> End | None:
        said = b""
        sources: list[int | Connection] = [self._process.sentinel, self._results, self._lines]
        try:
            self._tasks.send_bytes(json.dumps(task).encode())
        except OSError:
            pass  # it has ended; why is told below
        while True:
            ready = wait(sources, every)
            if self._lines in ready:
                part = _some(self._lines)
                said = (said + part)[-_TAIL:]
                if not part:
                    sources.remove(self._lines)
            if self._results in ready:
                result = attempt.received(self._results)
                if result is not None:
                    return End(0, result, "")
                sources.remove(self._results)
            if self._process.sentinel in ready:
                break
            if stop():
                return None
        self._process.join()
        while self._lines in sources and self._lines.poll() and (part := _some(self._lines)):
            said = (said + part)[-_TAIL:]
        code = self._process.exitcode
        if code in (None, 0, _VANISHED):  # it ended by itself only when there is no more to do
            code = -signal.SIGKILL
        complaints = said.decode(errors="replace").strip().splitlines() if code > 0 else []
        return End(code, {}, _plain(complaints[-1].removeprefix("dissect: ")) if complaints else "")

    def close(self) -> None:
        """End it; between tasks it holds nothing that must be put away."""
        self._hang_up()
        self._process.kill()
        self._process.join()
        self._process.close()

    def _hang_up(self) -> None:
        for end in (self._tasks, self._results, self._lines):
            end.close()


def _some(lines: Connection) -> bytes:
    """Some of what was said; nothing once the pipe has ended."""
    return os.read(lines.fileno(), _TAIL)


def _plain(line: str) -> str:
    """A line that a terminal and a log can show: whoever wrote it may have meant to steer them."""
    return "".join(character if character.isprintable() else "?" for character in line[:_LONGEST])
