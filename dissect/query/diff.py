"""What two runs say differently: by concept, or unit by unit."""

from collections.abc import Iterator, Sequence
from typing import Any

from dissect.errors import SpecError
from dissect.store import Store
from dissect.store.filters import ConceptFilter, UnitFilter
from dissect.store.other_rows import concept_rows
from dissect.store.unit_rows import COLUMNS, UnitRows

CONCEPT_COLUMNS = (
    "concept", "category", "change", "detectors_a", "detectors_b", "units_a", "units_b", "best_iou_a", "best_iou_b",
)  # fmt: skip
UNIT_COLUMNS = ("layer", "unit", "concept_a", "concept_b", "iou_a", "iou_b", "change")

Row = tuple[Any, ...]


def _check(store: Store, one: str, other: str) -> tuple[str, str]:
    """Ids of two runs that may be compared. Raises SpecError."""
    left, right = store.get_run(one), store.get_run(other)
    if left.convention != right.convention:
        raise SpecError(
            f"{left.title!r} counts as {left.convention!r}, {right.title!r} as {right.convention!r}: "
            "their IoUs are not comparable"
        )
    return left.id, right.id


def diff_concepts(store: Store, one: str, other: str, layers: Sequence[str] = ()) -> Iterator[Row]:
    """CONCEPT_COLUMNS: concepts that the detectors of either run (over the given layers) show, those in one only
    first; change is "only a", "only b" or "both". Raises SpecError where the conventions differ."""
    sides = []
    for run in _check(store, one, other):
        counted: dict[tuple[str, str], tuple[int, int, float]] = {}
        for row in concept_rows(store, ConceptFilter(runs=(run,), layers=tuple(layers))):
            key = (row[3], row[4])
            detectors, units, iou = counted.get(key, (0, 0, 0.0))
            counted[key] = (detectors + row[8], units + row[7], max(iou, row[9] or 0.0))
        sides.append(counted)
    rows = []
    for key in sides[0].keys() | sides[1].keys():
        left, right = (side.get(key, (0, 0, 0.0)) for side in sides)
        if left[0] or right[0]:
            change = "both" if left[0] and right[0] else "only a" if left[0] else "only b"
            rows.append((*key, change, left[0], right[0], left[1], right[1], left[2], right[2]))
    order = {"only a": 0, "only b": 1, "both": 2}
    rows.sort(key=lambda row: (order[row[2]], -max(row[3], row[4]), row[1], row[0]))
    return iter(rows)


def diff_units(store: Store, one: str, other: str, layers: Sequence[str] = ()) -> Iterator[Row]:
    """UNIT_COLUMNS for layers that both runs have with equally many units: units whose label or detection changed;
    change is "label", "gained" or "lost" (the cut), largest change of IoU first. Raises SpecError."""
    sides = [_labels(store, run, layers) for run in _check(store, one, other)]
    common = [name for name in sides[0] if name in sides[1] and len(sides[0][name]) == len(sides[1][name])]
    if not common:
        raise SpecError(f"{one!r} and {other!r} share no layer with equally many units: compare their concepts instead")
    rows = []
    for name in common:
        for unit, (concept_a, iou_a, found_a) in sides[0][name].items():
            concept_b, iou_b, found_b = sides[1][name][unit]
            if found_a != found_b:
                change = "gained" if found_b else "lost"
            elif concept_a != concept_b:
                change = "label"
            else:
                continue
            rows.append((name, unit, concept_a, concept_b, iou_a, iou_b, change))
    rows.sort(key=lambda row: (-abs(row[4] - row[5]), row[0], row[1]))
    return iter(rows)


def _labels(store: Store, run: str, layers: Sequence[str]) -> dict[str, dict[int, tuple[str | None, float, bool]]]:
    """By layer and unit: label, IoU, whether it is a detector."""
    found: dict[str, dict[int, tuple[str | None, float, bool]]] = {}
    cuts = {layer.name: layer.cut for layer in store.layers(run)}
    layer, unit, concept, iou = (COLUMNS.index(name) for name in ("layer", "unit", "concept", "iou"))
    for row in UnitRows(store, UnitFilter(runs=(run,), layers=tuple(layers))).rows():
        found.setdefault(row[layer], {})[row[unit]] = (row[concept], row[iou], row[iou] > cuts[row[layer]])
    return found
