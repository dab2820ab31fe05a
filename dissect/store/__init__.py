"""Runs in a database: SQLite by default, PostgreSQL by URL. The only door to SQLAlchemy."""

from dissect.store.records import (
    ArtifactRecord,
    CategoryRecord,
    ConceptRecord,
    ExcludedRecord,
    ExemplarTable,
    LayerRecord,
    RunRecord,
    StoredLayer,
    UnitTable,
)
from dissect.store.store import Store

__all__ = [
    "ArtifactRecord",
    "CategoryRecord",
    "ConceptRecord",
    "ExcludedRecord",
    "ExemplarTable",
    "LayerRecord",
    "RunRecord",
    "Store",
    "StoredLayer",
    "UnitTable",
]
