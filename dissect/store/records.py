"""What goes into the store and comes out of it: plain frozen values, NumPy columns where there are many rows.

U units of a layer, K categories, S stored scores, E stored exemplars. Concepts go by their number in label.csv,
categories by their index (row order of category.csv).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dissect.errors import DissectError
from dissect.scores import ScoreTable

FINISHED = ("finished", "imported")


@dataclass(frozen=True)
class RunRecord:
    """One run: what was dissected, how, with what. `spec` decides the id; `provenance` is everything else worth
    knowing. Times are UTC, ISO 8601; the store sets created_at, finished_at, state and error."""

    id: str
    convention: str
    model: str
    source: str
    data_name: str
    data_fingerprint: str
    name: str | None = None
    weights_sha256: str | None = None
    split: str | None = None
    images: int = 0
    excluded_images: int = 0
    label_h: int = 0
    label_w: int = 0
    quantile: float = 0.005
    spec: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    peak_rss_bytes: int = 0
    code_version: str = ""
    state: str = "running"
    created_at: str = ""
    finished_at: str | None = None
    error: str | None = None

    @property
    def title(self) -> str:
        """Its name, or its id."""
        return self.name or self.id


@dataclass(frozen=True)
class CategoryRecord:
    """pixels: of the images in which areas of units count towards the category, None where a run does not tell."""

    index: int
    name: str
    pixels: int | None = None


@dataclass(frozen=True)
class ConceptRecord:
    """A concept of a run's data. category is the index of its primary category, area its G in label pixels, images
    the number of images that hold it. name is None only for the empty label (number 0) of imported runs."""

    number: int
    name: str | None
    category: int
    area: int
    frequency: int | None = None
    coverage: float | None = None
    images: int | None = None
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExcludedRecord:
    """An image that was set aside."""

    position: int
    file: str
    reason: str


@dataclass(frozen=True)
class ArtifactRecord:
    """A file that belongs to a run; path relative to the workspace."""

    kind: str
    path: str
    sha256: str


@dataclass(frozen=True)
class UnitTable:
    """Columns [U], row = unit. nonfinite counts activations that were NaN or infinite; label 0 = none (then iou is 0);
    area = mask pixels over all images, -1 = unknown. Statistics that are not finite are stored as NULL, read as NaN.
    stability: how often the label stays the best when images are drawn anew; p_value and q_value of the label's IoU
    under the run's null, iou_null the IoU that this null gives on average. NaN or None where the run has none."""

    threshold: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    dead: np.ndarray
    saturated: np.ndarray
    nonfinite: np.ndarray
    area: np.ndarray
    label: np.ndarray
    iou: np.ndarray
    stability: np.ndarray | None = None
    p_value: np.ndarray | None = None
    q_value: np.ndarray | None = None
    iou_null: np.ndarray | None = None


@dataclass(frozen=True)
class ExemplarTable:
    """Columns [E], ordered by unit, then rank (1 = largest). row and column are the place of the maximum in the map."""

    unit: np.ndarray
    rank: np.ndarray
    image_position: np.ndarray
    image: np.ndarray
    activation: np.ndarray
    row: np.ndarray
    column: np.ndarray

    @classmethod
    def empty(cls) -> "ExemplarTable":
        whole = np.zeros(0, np.int64)
        return cls(whole, whole, whole, np.zeros(0, object), np.zeros(0), whole, whole)


@dataclass(frozen=True)
class LayerRecord:
    """Everything that a run found in one layer. activations = n per unit, top_k = k of them above the threshold;
    unit_areas [U, K] int64 = A; counts_file relative to the workspace or None."""

    name: str
    map_h: int
    map_w: int
    activations: int
    top_k: int
    cut: float
    detectors: int
    unique_detectors: int
    unique_concepts: int
    units: UnitTable
    unit_areas: np.ndarray
    scores: ScoreTable
    exemplars: ExemplarTable = field(default_factory=ExemplarTable.empty)
    counts_file: str | None = None


@dataclass(frozen=True)
class StoredLayer:
    """One layer as the store knows it; `units` is their number."""

    id: int
    run_id: str
    position: int
    name: str
    units: int
    map_h: int
    map_w: int
    activations: int
    top_k: int
    cut: float
    detectors: int
    unique_detectors: int
    unique_concepts: int
    counts_file: str | None


def check_layer(layer: LayerRecord, concepts: set[int], categories: int) -> None:
    """Raise DissectError where a layer contradicts itself: better no row than a wrong one."""
    units, scores = layer.units, layer.scores
    count = len(units.threshold)
    for name, column in vars(units).items():
        if column is not None and column.shape != (count,):
            raise DissectError(f"layer {layer.name}: column {name} has shape {column.shape}, expected ({count},)")
    if layer.unit_areas.shape != (count, categories):
        raise DissectError(
            f"layer {layer.name}: unit_areas has shape {layer.unit_areas.shape}, expected ({count}, {categories})"
        )
    for table in (scores, layer.exemplars):
        rows = {len(column) for column in vars(table).values() if column is not None}
        if len(rows) > 1:
            raise DissectError(f"layer {layer.name}: the columns of a table differ in length: {sorted(rows)}")
        if len(table.unit) and not 0 <= int(table.unit.min()) <= int(table.unit.max()) < count:
            raise DissectError(f"layer {layer.name}: a row names a unit outside 0..{count - 1}")
    unknown = set(np.unique(scores.concept).tolist()) - concepts
    if unknown:
        raise DissectError(f"layer {layer.name}: scores name concepts that the run lacks: {sorted(unknown)[:5]}")
    first = scores.rank == 1
    best = np.zeros(count, np.int64)
    best[scores.unit[first]] = scores.concept[first]
    wrong = np.flatnonzero((units.label != best) & (units.label != 0))
    if len(wrong):
        unit = int(wrong[0])
        raise DissectError(
            f"layer {layer.name}: unit {unit} has label {units.label[unit]} but {best[unit]} is its first score"
        )
