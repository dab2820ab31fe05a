"""Store -> page objects -> reports. The only importer of `reports`.

What pages show comes from the database and the files beside it; pictures come from the concept data, if it is at
hand. Nothing that differs between two equal runs (times, folders) reaches a page.
"""

from dissect.publish.attribution import publish_attributions
from dissect.publish.beside import publish_beside
from dissect.publish.card import Card, card
from dissect.publish.comparison import compare_page, publish_compare, publish_comparison
from dissect.publish.curve import publish_curve
from dissect.publish.facts import honesty, provenance
from dissect.publish.gallery import publish_gallery
from dissect.publish.layer import BEST
from dissect.publish.pictures import DataImages
from dissect.publish.run import publish_run, report_folder, run_page
from dissect.publish.workspace import publish_workspace

__all__ = [
    "BEST",
    "Card",
    "DataImages",
    "card",
    "compare_page",
    "honesty",
    "provenance",
    "publish_attributions",
    "publish_beside",
    "publish_compare",
    "publish_comparison",
    "publish_curve",
    "publish_gallery",
    "publish_run",
    "publish_workspace",
    "report_folder",
    "run_page",
]
