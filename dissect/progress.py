"""Progress of long work: a line that redraws itself on a terminal, one line per 30 s otherwise. Always on stderr."""

import sys
import time
from typing import TextIO

QUIET_INTERVAL = 30.0
LIVE_INTERVAL = 0.2


def duration(seconds: float) -> str:
    """12.3 s, 4 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes for people: 512 B, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


class Progress:
    """Counts `done` of `total` items of one named phase, with rate and time left."""

    def __init__(
        self, phase: str, total: int, done: int = 0, unit: str = "images", stream: TextIO | None = None
    ) -> None:
        self.phase, self.total, self.unit = phase, total, unit
        self.done = self._first = done
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._start = self._shown = time.monotonic()
        self._drawn = False

    def advance(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self._shown >= (LIVE_INTERVAL if self._live else QUIET_INTERVAL):
            self._shown = now
            self._show(now)

    def _show(self, now: float) -> None:
        rate = (self.done - self._first) / max(now - self._start, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else float("inf")
        text = f"{self.phase}  {self.done:,}/{self.total:,} {self.unit}  {rate:,.0f}/s  {duration(left)} left"
        if self._live:
            self._stream.write(f"\r\x1b[2K{text}")
            self._drawn = True
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Wipe the redrawn line."""
        if self._drawn:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._drawn = False
