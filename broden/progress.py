"""Progress of long work on standard error: a live line on a terminal, one line per 30 s otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

OnProgress = Callable[[str, int, int], None]
"""Called with a phase, the images done and the images in all. `Progress` is one that prints."""

EVERY_SECONDS = 30.0


class Progress:
    """Call it with a phase, the items done and the items in all; it prints rate and time left."""

    def __init__(self, stream: TextIO | None = None, unit: str = "images") -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._unit = unit
        self._phase = ""
        self._started = self._said = time.monotonic()
        self._open_line = False

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self.close()
            self._phase, self._started, self._said = phase, now, now
        wait = 0.1 if self._live else EVERY_SECONDS
        if now - self._said < wait and not (self._live and done >= total):
            return
        self._said = now
        rate = done / max(now - self._started, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        text = f"{phase}: {done:,} of {total:,} {self._unit}, {rate:,.0f}/s{left}"
        if self._live:
            self._stream.write(f"\r{text:<78}")
            self._open_line = True
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """End the live line."""
        if self._open_line:
            self._stream.write("\n")
            self._stream.flush()
            self._open_line = False
