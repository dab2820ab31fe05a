"""HTML reports from plain page objects: a folder that opens from disk, without a network.

`write` takes a RunPage, ComparePage or WorkspacePage and puts a complete folder in place at once.
"""

from .errors import ReportError
from .pages import ImageSource, LayerPage, RunPage, UnitCard, UnitColumns
from .run import Written, write_run

__all__ = ["ImageSource", "LayerPage", "ReportError", "RunPage", "UnitCard", "UnitColumns", "Written", "write_run"]
