"""The C library's heap: it grows in huge pages, and what lies free in it goes back to the system when the process has
grown."""

import ctypes
import mmap
import resource
from pathlib import Path
from threading import Event

SLACK = 64 << 20  # bytes by which it may grow before free ones are given back
EVERY = 8  # calls between two looks
ROOM = 1 << 30  # bytes of addresses for which huge pages are asked ahead; none of them is touched
LARGE = 32 << 20  # bytes from which a block lies by itself once the room is used up, as by default at most
_HUGE = 2 << 20
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ALWAYS = -3, -1, (1 << 31) - 1  # of mallopt(3)
_PAGES = Path("/proc/self/statm")
_wide = Event()  # whether this process was set up so: a run inside somebody else's leaves its heap as it is


def widen() -> None:
    """Have the heap grow in huge pages, and keep what is freed for the next batch.

    torch asks for huge pages block by block, but in a heap most blocks come to lie on pages that were touched before:
    a fifth of the memory of a run lay in huge ones, and a forward pass took a fifth longer. Does nothing with another C
    library, or where there are no such addresses.
    """
    libc = ctypes.CDLL(None)
    if not all(hasattr(libc, name) for name in ("mallopt", "sbrk", "madvise")) or not hasattr(mmap, "MADV_HUGEPAGE"):
        return
    _wide.set()
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.mallopt(_TRIM_THRESHOLD, _ALWAYS)
    libc.mallopt(_MMAP_THRESHOLD, _ALWAYS)
    start = libc.malloc(ROOM)
    libc.mallopt(_MMAP_THRESHOLD, LARGE)
    if start is None:
        return
    libc.free(start)
    end = libc.sbrk(0)
    if start < end <= start + 2 * ROOM:  # else the heap could not grow so far, and the block lay elsewhere
        first = -(-start // _HUGE) * _HUGE
        libc.madvise(first, end - first, mmap.MADV_HUGEPAGE)


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
            if _wide.is_set():
                widen()
            self._least = _resident()


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(_PAGES.read_text().split()[1]) * resource.getpagesize()
