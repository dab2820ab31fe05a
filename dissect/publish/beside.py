"""Everything of a workspace that is not the report of a run."""

from pathlib import Path

from dissect.publish.attribution import publish_attributions
from dissect.publish.gallery import publish_gallery
from dissect.publish.workspace import publish_workspace
from dissect.store import Store, attributions, syntheses


def publish_beside(store: Store) -> Path:
    """Write the gallery and the attributions, where there are any, and the page of the workspace, which links to them;
    returns the latter. Raises OSError."""
    if syntheses.every(store):
        publish_gallery(store)
    if attributions.every(store) or attributions.every_judgement(store):
        publish_attributions(store)
    return publish_workspace(store)
