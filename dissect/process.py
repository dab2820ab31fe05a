"""Facts about this process."""

import resource
from importlib.metadata import PackageNotFoundError, version


def code_version() -> str:
    """The release of dissect that runs."""
    try:
        return version("dissect")
    except PackageNotFoundError:
        return "unknown"


def peak_rss() -> int:
    """Largest memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
