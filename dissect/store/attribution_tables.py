"""Tables of attributions: one row a map, the units that carried a decision, and judgements of methods."""

from typing import Any

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table

from dissect.store.tables import INTEGER, REAL, TEXT, metadata


def _table(name: str, *items: Any, rowid: bool = True) -> Table:
    return Table(name, metadata, *items, sqlite_strict=True, sqlite_with_rowid=rowid)


def _run() -> Column[str]:
    """The dissection that named the units; the row outlives it."""
    return Column("run_id", TEXT, ForeignKey("runs.id", ondelete="SET NULL"))


attributions = _table(
    "attributions",
    Column("id", TEXT, primary_key=True),
    Column("method", TEXT, nullable=False),
    Column("model", TEXT, nullable=False),
    Column("weights_sha256", TEXT),
    _run(),
    Column("layer", TEXT),
    Column("image", TEXT, nullable=False),
    Column("image_sha256", TEXT, nullable=False),
    Column("target", TEXT, nullable=False),
    Column("score", REAL, nullable=False),
    Column("replaced", INTEGER),
    Column("parameters", TEXT, nullable=False),
    Column("audit", TEXT),
    Column("measures", TEXT, nullable=False),
    Column("facts", TEXT, nullable=False),
    Column("arrays", TEXT, nullable=False),
    Column("created_at", TEXT, nullable=False),
    Index("attributions_by_run", "run_id"),
    Index("attributions_by_image", "image_sha256", "target"),
)

attribution_carriers = _table(
    "attribution_carriers",
    Column("attribution_id", TEXT, ForeignKey("attributions.id", ondelete="CASCADE"), primary_key=True),
    Column("rank", INTEGER, primary_key=True, autoincrement=False),
    Column("unit", INTEGER, nullable=False),
    Column("contribution", REAL, nullable=False),
    Column("share", REAL, nullable=False),
    Column("concept", TEXT),
    Column("category", TEXT),
    Column("iou", REAL),
    Column("detector", INTEGER),
    CheckConstraint("share >= 0 AND share <= 1"),
    Index("attribution_carriers_by_unit", "unit"),
    rowid=False,
)

judgements = _table(
    "judgements",
    Column("id", TEXT, primary_key=True),
    Column("model", TEXT, nullable=False),
    Column("weights_sha256", TEXT),
    _run(),
    Column("data_name", TEXT, nullable=False),
    Column("data_fingerprint", TEXT),
    Column("items", INTEGER, nullable=False),
    Column("settings", TEXT, nullable=False),
    Column("created_at", TEXT, nullable=False),
    Index("judgements_by_run", "run_id"),
)

judgement_scores = _table(
    "judgement_scores",
    Column("judgement_id", TEXT, ForeignKey("judgements.id", ondelete="CASCADE"), primary_key=True),
    Column("method", TEXT, primary_key=True),
    Column("score", TEXT, primary_key=True),
    Column("position", INTEGER, nullable=False),
    Column("baseline", INTEGER, nullable=False),
    Column("mean", REAL, nullable=False),
    Column("error", REAL),
    Column("each", TEXT, nullable=False),
    rowid=False,
)
