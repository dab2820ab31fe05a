"""Tables of synthesised pictures: what was asked and how, every picture, and the cells of fooling archives."""

from typing import Any

from sqlalchemy import Column, ForeignKey, Index, LargeBinary, Table

from dissect.store.tables import INTEGER, REAL, TEXT, metadata


def _table(name: str, *items: Any, rowid: bool = True) -> Table:
    return Table(name, metadata, *items, sqlite_strict=True, sqlite_with_rowid=rowid)


def _synthesis() -> Column[str]:
    return Column("synthesis_id", TEXT, ForeignKey("syntheses.id", ondelete="CASCADE"), primary_key=True)


syntheses = _table(
    "syntheses",
    Column("id", TEXT, primary_key=True),
    Column("command", TEXT, nullable=False),
    Column("run_id", TEXT, ForeignKey("runs.id", ondelete="SET NULL")),
    Column("model", TEXT, nullable=False),
    Column("weights_sha256", TEXT),
    Column("seed", INTEGER, nullable=False),
    Column("parts", TEXT, nullable=False),
    Column("facts", TEXT, nullable=False),
    Column("folder", TEXT, nullable=False),
    Column("created_at", TEXT, nullable=False),
    Index("syntheses_by_run", "run_id"),
)

synthesis_pictures = _table(
    "synthesis_pictures",
    _synthesis(),
    Column("path", TEXT, primary_key=True),
    Column("position", INTEGER, nullable=False),
    Column("kind", TEXT, nullable=False),
    Column("sha256", TEXT, nullable=False),
    Column("layer", TEXT),
    Column("unit", INTEGER),
    Column("target", TEXT),
    Column("image", TEXT),
    Column("restart", INTEGER),
    Column("loss", REAL),
    Column("measures", TEXT, nullable=False),
    Index("synthesis_pictures_by_unit", "layer", "unit"),
    rowid=False,
)

synthesis_cells = _table(
    "synthesis_cells",
    _synthesis(),
    Column("cell", INTEGER, primary_key=True, autoincrement=False),
    Column("fitness", REAL, nullable=False),
    Column("generation", INTEGER, nullable=False),
    Column("genome", LargeBinary, nullable=False),
    rowid=False,
)
