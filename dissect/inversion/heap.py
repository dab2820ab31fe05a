"""Memory of a loop that asks for the same large blocks at every step."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of mallopt(3)
_KEEP = 2**31 - 1


def keep_blocks() -> bool:
    """Tell glibc to take large blocks from its heap and to keep them, for this process; False where it is not glibc.

    By default every block over 32 MB is mapped afresh and zeroed page by page, at every step of a batch: measured a
    fifth to a third of the time of 16 images of 224 pixels on a CPU.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(
        mallopt(option, value) for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _KEEP), (_TOP_PAD, 2**26))
    )
