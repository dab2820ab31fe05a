"""HTML reports from plain page objects: folders that open from disk, without a network.

`write_run`, `write_compare`, `write_workspace`, `write_gallery` … each put a complete folder in place at once. A leaf
package: it knows NumPy, Pillow and Jinja, and nothing of the rest of the product.
"""

from .attribution import write_attributions
from .budget import DEFAULT as DEFAULT_BYTES
from .compare import compare_html, write_compare
from .curve import curve_html, write_curve
from .errors import ReportError
from .gallery import write_gallery
from .layer import layer_folder
from .run import Written, write_run
from .text import integer, plural, shown
from .workspace import write_workspace

__all__ = [
    "DEFAULT_BYTES",
    "ReportError",
    "Written",
    "compare_html",
    "curve_html",
    "integer",
    "layer_folder",
    "plural",
    "shown",
    "write_attributions",
    "write_compare",
    "write_curve",
    "write_gallery",
    "write_run",
    "write_workspace",
]
