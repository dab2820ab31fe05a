"""What a report shows, as plain objects. Every field says what it means; a test asks for it.

The caller fills these from wherever it keeps its results; this package knows neither a database nor a network.
Axes: U units, h w activation map, H W label map. Units are 0-based everywhere.
"""

# ruff: noqa: RUF009 - `told` is dataclasses.field with a help text

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


def told(text: str, **options: Any) -> Any:
    """A dataclass field with its help text."""
    return field(metadata={"help": text}, **options)


class ImageSource(Protocol):
    """Where pictures come from: thumbnails and labels by image position, never a path."""

    def thumb(self, position: int, px: int) -> np.ndarray | None:
        """uint8 [px, px, 3], squashed to a square; None where the image is missing."""

    def labels(self, position: int) -> tuple[list[np.ndarray], list[int]] | None:
        """Label planes, each an integer array [H, W], and whole-image labels; None where there are none."""


@dataclass(frozen=True)
class Concept:
    """A named label."""

    number: int = told("label number in the concept data; stable within one data set")
    name: str = told("name as in the concept data")
    category: str = told("primary category: the one it is scored under")
    area: int = told("labelled pixels over all images used, at label resolution: G")
    images: int | None = told("images that carry it, where counted", default=None)


@dataclass(frozen=True)
class Score:
    """One unit against one concept, as integers."""

    concept: int = told("label number")
    intersection: int = told("pixels where mask and concept meet: I")
    unit_area: int = told("mask pixels over the images of the concept's category: A")


@dataclass(frozen=True)
class Exemplar:
    """One of the images that a unit responds to most."""

    position: int = told("place of the image in the concept data, from 0")
    image: str = told("name of the image relative to the data root, with forward slashes")
    activation: float = told("largest raw activation of the unit in this image")
    row: int = told("row of that largest activation in the map, from 0")
    column: int = told("column of that largest activation in the map, from 0")
    map: np.ndarray | None = told("the unit's raw activation map here, float32 [h, w]; None where it was not kept")


@dataclass(frozen=True)
class Histogram:
    """Distribution of a unit's raw activations; bins may differ in width, and the page draws them equally wide."""

    edges: tuple[float, ...] = told("ascending bin edges, one more than counts")
    counts: tuple[int, ...] = told("activations in each bin")


@dataclass(frozen=True)
class Synthesis:
    """A picture that was synthesised for a unit."""

    title: str = told("what it is, in a few words")
    note: str = told("how good it is", default="")
    read: Callable[[], bytes | None] = told("the picture's file; None where it is gone", default=lambda: None)


@dataclass(frozen=True)
class UnitCard:
    """What one unit shows beyond its row in UnitColumns."""

    unit: int = told("unit, from 0")
    best: tuple[Score, ...] = told("its best concepts, best first, at most ten are shown")
    by_category: tuple[Score, ...] = told("the best concept of each category that it meets at all")
    exemplars: tuple[Exemplar, ...] = told("top images, strongest first")
    histogram: Histogram | None = told("activation histogram; None where the run has none", default=None)
    made: tuple[Synthesis, ...] = told("pictures synthesised for it, oldest first", default=())


@dataclass(frozen=True)
class UnitColumns:
    """One row per unit, as columns of length U."""

    concept: np.ndarray = told("label number of the unit's best concept, -1 for none; int64 [U]")
    intersection: np.ndarray = told("I with that concept; int64 [U]")
    unit_area: np.ndarray = told("A over the images of that concept's category; int64 [U]")
    iou: np.ndarray = told("IoU with that concept, 0 for none; float64 [U]")
    threshold: np.ndarray = told("activation threshold T; float64 [U], NaN where undefined")
    dead: np.ndarray = told("constant activation; bool [U]")
    saturated: np.ndarray = told("threshold equals the maximum, so that the mask is empty; bool [U]")
    nonfinite: np.ndarray = told("how many NaN or infinite activations were met; int64 [U]")
    low: np.ndarray | None = told("lower end of the 95 % interval of the IoU; None: the run has none", default=None)
    high: np.ndarray | None = told("upper end of the 95 % interval of the IoU; None: the run has none", default=None)
    null: np.ndarray | None = told("IoU expected by chance; None: the run has no baseline", default=None)
    p: np.ndarray | None = told("p-value of the IoU against the baseline; None: the run has none", default=None)
    q: np.ndarray | None = told("q-value of the IoU against the baseline; None: the run has none", default=None)
    stability: np.ndarray | None = told(
        "how often the label stays the best when images are drawn anew, 0 to 1; None: the run has none", default=None
    )
    phi: np.ndarray | None = told("correlation of mask and concept over pixels; None: the run has none", default=None)
    iqr: np.ndarray | None = told("information quality ratio of the two; None: the run has none", default=None)
    ap: np.ndarray | None = told(
        "average precision of ranking images by the unit's peak, NaN for rare concepts; None: the run has none",
        default=None,
    )


@dataclass(frozen=True)
class LayerPage:
    """One dissected layer."""

    name: str = told("dotted module name")
    position: int = told("place among the run's layers in execution order, from 0")
    map_size: tuple[int, int] = told("(h, w) of the activation map")
    units: UnitColumns = told("one row per unit")
    cards: Callable[[int, int], Sequence[UnitCard]] = told("cards of the units first <= u < stop, in unit order")
    digest: str = told("changes whenever anything shown on this layer's pages could; unchanged layers are not redrawn")
    activations: int = told("activations that each threshold was chosen from: n = N h w")
    top_k: int = told("activations above each threshold: k = floor(q n)")
    unique_detectors: int = told("distinct labels over the cut when each category is judged alone, summed")

    @property
    def count(self) -> int:
        """Number of units."""
        return len(self.units.concept)


@dataclass(frozen=True)
class Fact:
    """One line of the provenance block."""

    key: str = told("what it is")
    value: str = told("its value; long hashes stay whole")


@dataclass(frozen=True)
class Excluded:
    """An input that was set aside."""

    position: int = told("place in the concept data, from 0")
    file: str = told("its name relative to the data root")
    reason: str = told("why it could not be used")


@dataclass(frozen=True)
class RunPage:
    """One run: the whole report."""

    id: str = told("the run's id")
    name: str = told("the run's name, or its id where it has none")
    model: str = told("where the model came from, such as torchvision:resnet18")
    data: str = told("name of the concept data")
    split: str | None = told("the split used; None: all rows")
    images: int = told("images used")
    label_size: tuple[int, int] = told("(H, W) of the label maps")
    quantile: float = told("share of activations above the threshold: q")
    cut: float = told("a unit is a detector when its IoU is above this, strictly")
    convention: str = told("named convention of the counts")
    categories: tuple[str, ...] = told("category names in the order of the concept data")
    concepts: tuple[Concept, ...] = told("every concept that anything on these pages refers to")
    layers: tuple[LayerPage, ...] = told("the layers, in execution order")
    provenance: tuple[Fact, ...] = told("what is needed to repeat the run; no clock, no path", default=())
    honesty: tuple[str, ...] = told("what a reader must know before believing the numbers", default=())
    excluded: tuple[Excluded, ...] = told("inputs set aside", default=())


@dataclass(frozen=True)
class ComparedLayer:
    """One layer of a run in a comparison."""

    run: str = told("name of the run")
    model: str = told("model of the run")
    layer: str = told("layer name")
    convention: str = told("convention of the counts; a comparison refuses mixed ones")
    data: str = told("fingerprint of the concept data; a comparison refuses mixed ones")
    cut: float = told("detector cut of the run")
    units: int = told("number of units")
    concept: np.ndarray = told("label number of each unit, -1 for none; int64 [U]")
    iou: np.ndarray = told("IoU of each unit; float64 [U]")
    link: str | None = told("relative link to the layer's page; None where there is none", default=None)
    same_units: bool = told("unit u here is unit u of the first column: two states of one network", default=False)
    interval: np.ndarray | None = told(
        "95 % interval of each unit's IoU, NaN where there is none; float64 [U, 2]", default=None
    )


@dataclass(frozen=True)
class MatchedUnits:
    """Units of the first column beside those of another network whose IoU with all concepts is most alike."""

    column: int = told("which column the partners are in, from 1")
    unit: np.ndarray = told("units of the first column; int64 [P]")
    partner: np.ndarray = told("their partners; int64 [P]")
    correlation: np.ndarray = told("how alike: Pearson correlation of the IoU with every concept; float64 [P]")
    agreement: float = told("share of pairs of detectors with the same label")
    chance: float = told("that share if labels were dealt out at random among the pairs")


@dataclass(frozen=True)
class ComparePage:
    """Layers beside each other."""

    title: str = told("heading of the page")
    concepts: tuple[Concept, ...] = told("the concept list that the runs share")
    categories: tuple[str, ...] = told("category names in the order of the concept data")
    columns: tuple[ComparedLayer, ...] = told("what is compared, left to right")
    matches: tuple[MatchedUnits, ...] = told("units matched by what they detect", default=())
    notes: tuple[str, ...] = told("what must be said beside the numbers", default=())
    home: str | None = told("relative link to the page of the workspace; None where it is not beside", default=None)


@dataclass(frozen=True)
class ListedLayer:
    """One layer in the list of a workspace."""

    name: str = told("layer name")
    units: int = told("number of units")
    detectors: int = told("units over the cut")
    unique_concepts: int = told("distinct labels among the detectors")


@dataclass(frozen=True)
class ListedRun:
    """One run in the list of a workspace."""

    id: str = told("the run's id")
    name: str = told("the run's name, or its id")
    model: str = told("model of the run")
    data: str = told("name of the concept data")
    state: str = told("running, finished, failed or imported")
    convention: str = told("convention of the counts")
    images: int = told("images used")
    layers: tuple[ListedLayer, ...] = told("its layers, in execution order")
    link: str | None = told("relative link to its report; None where there is none yet", default=None)
    note: str = told("error or remark", default="")


@dataclass(frozen=True)
class Sighting:
    """A layer of a run that detects a concept."""

    run: str = told("name of the run")
    layer: str = told("layer name")
    units: int = told("detectors of the concept in that layer")
    best_iou: float = told("largest IoU among them")
    best_unit: int = told("the unit that has it")
    link: str | None = told("relative link to these units; None where there is none", default=None)


@dataclass(frozen=True)
class WorkspaceConcept:
    """Where in a workspace a concept is detected."""

    name: str = told("concept name")
    category: str = told("its category")
    sightings: tuple[Sighting, ...] = told("best first")


@dataclass(frozen=True)
class Listed:
    """A named link with a remark."""

    title: str = told("text of the link")
    link: str = told("relative link")
    note: str = told("what is there", default="")


@dataclass(frozen=True)
class JobRow:
    """One job of the queue."""

    id: str = told("the job's id")
    title: str = told("what it dissects, in words")
    state: str = told("waiting, running, finished, failed or cancelled")
    done: int = told("finished shards")
    shards: int = told("all shards; 0 where they are not known yet")
    attempts: int = told("how often a shard of it was begun", default=0)
    workers: int = told("workers that hold a shard now", default=0)
    link: str | None = told("relative link to the report of its run; None where there is none yet", default=None)
    note: str = told("error or remark", default="")


@dataclass(frozen=True)
class WorkspacePage:
    """All runs of a workspace."""

    title: str = told("heading of the page")
    runs: tuple[ListedRun, ...] = told("all runs, in the order to show")
    concepts: tuple[WorkspaceConcept, ...] = told("concepts detected anywhere", default=())
    comparisons: tuple[Listed, ...] = told("comparison pages", default=())
    gallery: Listed | None = told("the gallery of synthesised pictures; None: there is none", default=None)
    jobs: tuple[JobRow, ...] = told("jobs, where there is a queue, newest first", default=())
    attributions: Listed | None = told("the page of attributions; None: there is none", default=None)
