"""The tables. Integers are int64, flags (dead, saturated) 0 or 1, times UTC ISO text, lists and objects JSON text.

STRICT on SQLite; the same definitions hold on PostgreSQL. NaN and infinity never enter a column: they become NULL
and the unit's `nonfinite` counts its bad values. See `migrate` for how a definition may change.
"""

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, Double, ForeignKey, Index, MetaData, Table, Text, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.types import TypeEngine

metadata = MetaData()

INTEGER = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
REAL: TypeEngine[float] = Double().with_variant(sqlite.REAL(), "sqlite")
TEXT = Text()


def _table(name: str, *items: Any, rowid: bool = True) -> Table:
    """A STRICT table; without a rowid where the primary key is the order in which rows are read."""
    return Table(name, metadata, *items, sqlite_strict=True, sqlite_with_rowid=rowid)


def _run(primary_key: bool = True) -> Column[str]:
    return Column("run_id", TEXT, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=primary_key, nullable=False)


def _layer() -> Column[int]:
    return Column(
        "layer_id", INTEGER, ForeignKey("layers.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )


def _key(name: str) -> Column[int]:
    return Column(name, INTEGER, primary_key=True, autoincrement=False)


def _integer(name: str, nullable: bool = False) -> Column[int]:
    return Column(name, INTEGER, nullable=nullable)


def _real(name: str, nullable: bool = False) -> Column[float]:
    return Column(name, REAL, nullable=nullable)


def _text(name: str, nullable: bool = False) -> Column[str]:
    return Column(name, TEXT, nullable=nullable)


meta = _table("meta", Column("key", TEXT, primary_key=True), _text("value"))

migrations = _table("migrations", _key("version"), _text("name"), _text("applied_at"))

runs = _table(
    "runs",
    Column("id", TEXT, primary_key=True),
    Column("name", TEXT, unique=True),
    Column("state", TEXT, CheckConstraint("state IN ('running', 'finished', 'failed', 'imported')"), nullable=False),
    _text("convention"),
    _text("model"),
    _text("source"),
    _text("weights_sha256", nullable=True),
    _text("data_name"),
    _text("data_fingerprint"),
    _text("split", nullable=True),
    _integer("images"),
    _integer("excluded_images"),
    _integer("label_h"),
    _integer("label_w"),
    _real("quantile"),
    _text("spec"),
    _text("provenance"),
    _text("timings"),
    _integer("peak_rss_bytes"),
    _text("code_version"),
    _text("created_at"),
    _text("finished_at", nullable=True),
    _text("error", nullable=True),
)

layers = _table(
    "layers",
    Column("id", INTEGER, primary_key=True),
    _run(primary_key=False),
    _integer("position"),
    _text("name"),
    _integer("units"),
    _integer("map_h"),
    _integer("map_w"),
    _integer("activations"),
    _integer("top_k"),
    _real("cut"),
    _integer("detectors"),
    _integer("unique_detectors"),
    _integer("unique_concepts"),
    _text("counts_file", nullable=True),
    Index("layers_by_position", "run_id", "position", unique=True),
    Index("layers_by_name", "run_id", "name", unique=True),
)

categories = _table("categories", _run(), _key("index"), _text("name"), _integer("pixels", nullable=True), rowid=False)

concepts = _table(
    "concepts",
    _run(),
    _key("number"),
    _text("name", nullable=True),
    _integer("category"),
    _integer("frequency", nullable=True),
    _real("coverage", nullable=True),
    _integer("area"),
    _integer("images", nullable=True),
    _text("synonyms"),
    Index("concepts_by_name", "run_id", "name"),
    rowid=False,
)

units = _table(
    "units",
    _layer(),
    _key("unit"),
    _real("threshold", nullable=True),
    _real("low", nullable=True),
    _real("high", nullable=True),
    _real("mean", nullable=True),
    _real("std", nullable=True),
    _integer("dead"),
    _integer("saturated"),
    _integer("nonfinite"),
    _integer("area", nullable=True),
    _integer("label", nullable=True),
    _real("iou"),
    _real("stability", nullable=True),
    _real("p_value", nullable=True),
    _real("q_value", nullable=True),
    _real("iou_null", nullable=True),
    CheckConstraint("iou >= 0 AND iou <= 1"),
    Index("units_by_iou", "layer_id", text("iou DESC"), "unit"),
    Index("units_by_label", "layer_id", "label", "iou"),
    rowid=False,
)

unit_areas = _table("unit_areas", _layer(), _key("unit"), _key("category"), _integer("area"), rowid=False)

scores = _table(
    "scores",
    _layer(),
    _key("unit"),
    _key("rank"),
    _integer("concept"),
    _integer("concept_rank"),
    _integer("intersection"),
    _integer("unit_area"),
    _integer("concept_area"),
    _real("iou"),
    _real("iou_low", nullable=True),
    _real("iou_high", nullable=True),
    _real("phi", nullable=True),
    _real("iqr", nullable=True),
    _real("ap", nullable=True),
    CheckConstraint("iou >= 0 AND iou <= 1"),
    Index("scores_by_concept", "layer_id", "concept", "concept_rank", unique=True),
    Index("scores_by_iou", "layer_id", text("iou DESC"), "unit", "rank"),
    rowid=False,
)

exemplars = _table(
    "exemplars",
    _layer(),
    _key("unit"),
    _key("rank"),
    _integer("image_position"),
    _text("image"),
    _real("activation"),
    _integer("row"),
    _integer("column"),
    rowid=False,
)

excluded = _table("excluded", _run(), _key("position"), _text("file"), _text("reason"), rowid=False)

artifacts = _table(
    "artifacts",
    _run(),
    Column("kind", TEXT, primary_key=True),
    Column("path", TEXT, primary_key=True),
    _text("sha256"),
    rowid=False,
)
