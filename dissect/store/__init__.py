"""Runs in a database: SQLite by default, PostgreSQL by URL. The only door to SQLAlchemy, opened on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("dissect.store.store" if name == "Store" else "dissect.store.records"), name)
