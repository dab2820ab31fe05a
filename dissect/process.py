"""Facts about this process, and how it is set up."""

import gc
import os
import resource
import sys
from importlib.metadata import PackageNotFoundError, version

from dissect.heap import widen

ENVIRONMENT = {"THP_MEM_ALLOC_ENABLE": "1", "GOMP_SPINCOUNT": "1000"}
SWITCH_SECONDS = 0.0005


def code_version() -> str:
    """The release of dissect that runs."""
    try:
        return version("dissect")
    except PackageNotFoundError:
        return "unknown"


def peak_rss() -> int:
    """Largest memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tune() -> None:
    """Set this process up for work with networks; what torch reads when it is imported must be there before.

    Huge pages: page faults were a third of a forward pass without them. Threads that wait for each other give way soon:
    beside another process on the same cores, spinning made runs up to seven times slower, and giving way cost nothing
    on an idle machine. Threads that decode give the interpreter back soon to the one that forwards.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    sys.setswitchinterval(SWITCH_SECONDS)
    widen()
    gc.set_threshold(100_000, 20, 100)  # importing torch makes a million objects that stay: looking for garbage is idle


def live_long() -> None:
    """Set this process up for days without networks: what it throws away goes at once."""
    gc.set_threshold(700, 10, 10)
