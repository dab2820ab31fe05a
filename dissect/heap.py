"""The C library's heap: what lies free in it goes back to the system when it has grown."""

import ctypes

SLACK = 64 << 20  # bytes that may come to lie free before they are given back
EVERY = 8  # calls between two looks, which take a third of a millisecond


class _Counts(ctypes.Structure):
    """struct mallinfo2 of glibc 2.33 and later."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


class Heap:
    """Keeps a long loop from growing by blocks that nobody holds.

    Before 2.38 glibc does not find aligned blocks again that it was given back (its bug 14581), and torch aligns large
    tensors to huge pages: every so many batches one more lay free. Does nothing with another C library.
    """

    def __init__(self) -> None:
        self._calls = 0
        library = ctypes.CDLL(None)
        self._known = hasattr(library, "mallinfo2") and hasattr(library, "malloc_trim")
        if self._known:
            self._counts, self._trim = library.mallinfo2, library.malloc_trim
            self._counts.restype = _Counts
            self._trim.argtypes = [ctypes.c_size_t]
            self._least = self._free()

    def _free(self) -> int:
        """Bytes of free blocks, whether pages stand behind them or not."""
        return int(self._counts().fordblks)

    def trim(self) -> None:
        """Called once a batch, it acts when `SLACK` more bytes lie free than at any look since it acted last."""
        self._calls += 1
        if not self._known or self._calls % EVERY:
            return
        free = self._free()
        self._least = min(self._least, free)
        if free > self._least + SLACK:
            self._trim(0)
            self._least = free
