"""Network dissection: which concept does each unit of a network detect, and can one believe it?

    import dissect
    dissect.open("dissections").units(concept="dog", min_iou=0.04).to_pandas()

Public names are imported on first use, so that a kernel test needs neither a database nor torchvision.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dissect.api import Dissections as Dissections
    from dissect.api import open as open
    from dissect.pipeline import Method as Method
    from dissect.pipeline import Resources as Resources
    from dissect.pipeline import dissect as dissect

_HOMES = {"open": "api", "Dissections": "api", "dissect": "pipeline", "Method": "pipeline", "Resources": "pipeline"}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dissect' has no attribute {name!r}")
    return getattr(import_module(f"dissect.{_HOMES[name]}"), name)
