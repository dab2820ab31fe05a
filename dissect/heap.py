"""The C library's heap: what lies free in it goes back to the system when the process has grown."""

import ctypes
import resource
from pathlib import Path

SLACK = 64 << 20  # bytes by which it may grow before free ones are given back
EVERY = 8  # calls between two looks
_PAGES = Path("/proc/self/statm")


class Heap:
    """Keeps a long loop from growing by blocks that nobody holds.

    Before 2.38 glibc does not find aligned blocks again that it was given back (its bug 14581), and torch aligns large
    tensors to huge pages: every so many batches one more lay free. What lies free in the heaps of threads, glibc does
    not tell; so the size of the process decides, once it has grown by more than `quiet` bytes: touching pages again
    that were given back took a tenth of a short run's time. Does nothing with another C library.
    """

    def __init__(self, quiet: int = 0) -> None:
        self._calls = 0
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _PAGES.exists() else None
        if self._trim is not None:
            self._trim.argtypes = [ctypes.c_size_t]
            self._least = _resident()
            self._quiet = self._least + quiet

    def trim(self) -> None:
        """Called once a batch, it acts when the process is `SLACK` larger than at any look since it acted last."""
        self._calls += 1
        if self._trim is None or self._calls % EVERY:
            return
        now = _resident()
        self._least = min(self._least, now)
        if now > max(self._quiet, self._least + SLACK):
            self.give_back()

    def give_back(self) -> None:
        """All that lies free."""
        if self._trim is not None:
            self._trim(0)
            self._least = _resident()


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(_PAGES.read_text().split()[1]) * resource.getpagesize()
