"""Layers beside each other: detectors by category, concepts that only some have, units matched, differences.

Sides are layers of runs: layers of one network by depth, networks, or checkpoints over training. All must count by the
same convention, on the same concept data; imported runs do not say what theirs was and are compared by concept names.

Units are matched by number where both sides are the same layer of the same architecture, seen along the same basis:
states of one network. Elsewhere numbers mean nothing, and units are matched by profile: the IoU of a unit with every
concept, correlated (Pearson) between the sides; a pair is two units that are each other's best. Agreement is the share
of pairs of detectors that have the same label; chance is what it would be if labels were dealt out at random.

Intervals (95 %): that of an IoU is the run's own; that of a difference of two IoUs is put together from both (Zou and
Donner 2008), as if the sides were independent, which is wide rather than narrow for runs over the same images; that of
a difference of shares of detectors takes units for the sample (matched by number: paired, Agresti and Min 2005; else
Newcombe 1998).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from dissect.errors import DissectError, SpecError
from dissect.scores import ScoreTable, iou
from dissect.store import RunRecord, Store, StoredLayer
from dissect.store.records import FINISHED, UnitTable

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MATCHES = ("auto", "number", "profile", "none")
_Z = 1.959963984540054
_ROWS = 1024  # units correlated at a time
_SHOWN = 12  # concepts named in a line

Interval = tuple[float, float]
Concept = tuple[str, str]  # name, category


@dataclass(frozen=True)
class Side:
    """One layer of a run. label [U]: index into `concepts` of the comparison, -1 for none; best {concept: unit}."""

    letter: str
    run: RunRecord
    layer: StoredLayer
    units: UnitTable
    label: np.ndarray
    concepts: tuple[Concept, ...]
    categories: tuple[str, ...]
    numbers: Mapping[int, int]
    scores: ScoreTable
    areas: np.ndarray
    area: np.ndarray
    primary: np.ndarray
    counts: np.ndarray | None

    @property
    def title(self) -> str:
        return f"{self.run.title}:{self.layer.name}"

    @cached_property
    def detector(self) -> np.ndarray:
        """bool [U]."""
        return np.asarray((self.units.iou > self.layer.cut) & (self.label >= 0))

    @cached_property
    def intervals(self) -> np.ndarray | None:
        """[U, 2]: of each label's IoU, NaN where there is none; None where the run has no intervals."""
        pairs = self.scores
        if pairs.iou_low is None or pairs.iou_high is None or not np.isfinite(pairs.iou_low).any():
            return None
        found = np.full((self.layer.units, 2), np.nan)
        mine = pairs.concept == self.units.label[pairs.unit]
        found[pairs.unit[mine], 0], found[pairs.unit[mine], 1] = pairs.iou_low[mine], pairs.iou_high[mine]
        return found

    def of(self, concept: int) -> np.ndarray:
        """Detectors of a concept."""
        return np.flatnonzero(self.detector & (self.label == concept))

    def best(self, concept: int) -> int | None:
        """The detector with the highest IoU for a concept."""
        mine = self.of(concept)
        return int(mine[np.argmax(self.units.iou[mine])]) if len(mine) else None

    def interval(self, unit: int | None) -> Interval | None:
        """Of a unit's label; None where there is none."""
        if unit is None or self.intervals is None or not np.isfinite(self.intervals[unit]).all():
            return None
        return float(self.intervals[unit, 0]), float(self.intervals[unit, 1])

    def profile(self) -> np.ndarray | None:
        """[U, concepts] float32: IoU with every concept, centred and of length 1 (0 where flat); None where the run
        has no complete counts."""
        if self.counts is None:
            return None
        own = sorted(self.numbers)
        found = np.zeros((self.layer.units, len(self.concepts)), np.float32)
        columns = [self.numbers[number] for number in own]
        for start in range(0, self.layer.units, _ROWS):
            rows = slice(start, start + _ROWS)
            found[rows, columns] = iou(
                np.asarray(self.counts[rows][:, own]), self.areas[rows][:, self.primary[own]], self.area[own]
            )
        found -= found.mean(axis=1, keepdims=True)
        length = np.linalg.norm(found, axis=1, keepdims=True)
        return np.divide(found, length, out=np.zeros_like(found), where=length > 0)


@dataclass(frozen=True)
class Match:
    """Units of one side beside units of another: `how` is "number" or "profile"; correlation [P] for profiles."""

    one: Side
    other: Side
    how: str
    unit: np.ndarray
    partner: np.ndarray
    correlation: np.ndarray | None

    @cached_property
    def kinds(self) -> np.ndarray:
        """[P]: what became of each pair, as an index into KINDS."""
        before, after = self.one.detector[self.unit], self.other.detector[self.partner]
        same = self.one.label[self.unit] == self.other.label[self.partner]
        both = np.where(same, 0, 1)
        return np.where(before & after, both, np.where(before, 2, np.where(after, 3, 4)))

    @property
    def tally(self) -> dict[str, int]:
        """Pairs by what became of them."""
        count = np.bincount(self.kinds, minlength=len(KINDS))
        return {name: int(n) for name, n in zip(KINDS, count)}

    @property
    def agreement(self) -> float | None:
        """Share of pairs of detectors with one label; None without such pairs."""
        both = self.tally["kept"] + self.tally["relabelled"]
        return self.tally["kept"] / both if both else None

    @property
    def chance(self) -> float | None:
        """The agreement that labels dealt out at random among these pairs would have."""
        both = self.kinds < 2
        total = int(both.sum())
        if not total:
            return None
        one, other = (
            Counter(self.one.label[self.unit[both]].tolist()),
            Counter(self.other.label[self.partner[both]].tolist()),
        )
        return sum(n * other[label] for label, n in one.items()) / total**2


KINDS = ("kept", "relabelled", "lost", "gained", "none")


@dataclass(frozen=True)
class Comparison:
    """Two or more sides over one list of concepts; the first side is what the others are compared with."""

    sides: tuple[Side, ...]
    concepts: tuple[Concept, ...]
    categories: tuple[str, ...]
    matches: tuple[Match, ...]
    notes: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """The whole comparison as plain values; `docs/compare.md` tells the keys."""
        return {
            "convention": self.sides[0].run.convention,
            "data": self.sides[0].run.data_fingerprint,
            "categories": list(self.categories),
            "sides": [self._side(side) for side in self.sides],
            "concepts": [self._concept(index) for index in self.met],
            "only": {side.letter: [self.concepts[i][0] for i in self.met if self.where(i) == side.letter]
                     for side in self.sides},
            "matches": [self._match(match) for match in self.matches],
            "notes": list(self.notes),
        }  # fmt: skip

    @cached_property
    def met(self) -> list[int]:
        """Concepts that some side detects: by category, then by detectors, then by name."""
        total = Counter(label for side in self.sides for label in side.label[side.detector].tolist())
        rank = {name: at for at, name in enumerate(self.categories)}
        return sorted(total, key=lambda i: (rank[self.concepts[i][1]], -total[i], self.concepts[i][0]))

    def where(self, concept: int) -> str:
        """Letters of the sides that detect a concept."""
        return "".join(side.letter for side in self.sides if len(side.of(concept)))

    def table(self) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Columns and rows for eyes: the layer as a whole, then each category as "detectors / unique concepts"."""
        columns = (
            "side", "run", "layer", "units", "detectors", "unique_detectors", "unique_concepts", *self.categories
        )  # fmt: skip
        rows = []
        for side in self.sides:
            kinds = by_category(side, self.categories)
            cells = (f"{kinds[name]['detectors']} / {kinds[name]['unique_concepts']}" for name in self.categories)
            at = side.layer
            rows.append(
                (side.letter, side.run.title, at.name, at.units, at.detectors, at.unique_detectors, at.unique_concepts,
                 *cells)
            )  # fmt: skip
        return columns, rows

    def sentences(self) -> list[str]:
        """What the table leaves out, a line each."""
        found = list(self.notes)
        for side in self.sides:
            own = [self.concepts[i][0] for i in self.met if self.where(i) == side.letter]
            shown = ", ".join(own[:_SHOWN]) + (f" and {len(own) - _SHOWN} more" if len(own) > _SHOWN else "")
            found.append(f"only {side.letter}: {shown or 'nothing'}")
        for match in self.matches:
            tally = match.tally
            found.append(
                f"{match.one.letter} to {match.other.letter}, {len(match.unit)} units matched by {match.how}: "
                f"{tally['kept']} detectors keep the label, {tally['relabelled']} take another, {tally['lost']} are "
                f"lost, {tally['gained']} gained"
            )
        return found

    def _side(self, side: Side) -> dict[str, Any]:
        at, low = side.layer, side.intervals
        first = self.sides[0]
        found: dict[str, Any] = {
            "side": side.letter, "run": side.run.id, "name": side.run.name, "model": side.run.model, "layer": at.name,
            "units": at.units, "cut": at.cut, "detectors": at.detectors, "unique_detectors": at.unique_detectors,
            "unique_concepts": at.unique_concepts, "categories": by_category(side, self.categories),
        }  # fmt: skip
        if low is not None:
            found["detectors_certain"] = int((low[:, 0] > at.cut).sum())
            found["detectors_possible"] = int((low[:, 1] > at.cut).sum())
        if side is not first:
            match = next((m for m in self.matches if m.other is side), None)
            difference, low_high = share_difference(first, side, match)
            found["share_difference"] = {"value": difference, "low": low_high[0], "high": low_high[1]}
        return found

    def _concept(self, index: int) -> dict[str, Any]:
        name, category = self.concepts[index]
        cells = []
        first = self.sides[0].best(index)
        for side in self.sides:
            best = side.best(index)
            cell: dict[str, Any] = {
                "side": side.letter, "detectors": len(side.of(index)), "best_unit": best,
                "best_iou": None if best is None else float(side.units.iou[best]),
            }  # fmt: skip
            if best is not None and (own := side.interval(best)):
                cell |= {"iou_low": own[0], "iou_high": own[1]}
            if side is not self.sides[0] and best is not None and first is not None:
                cell["difference"] = _difference(self.sides[0], first, side, best)
            cells.append(cell)
        return {"concept": name, "category": category, "in": self.where(index), "sides": cells}

    def _match(self, match: Match) -> dict[str, Any]:
        rows = []
        for at, (unit, partner) in enumerate(zip(match.unit.tolist(), match.partner.tolist())):
            row = {
                "unit_a": unit, "unit_b": partner, "change": KINDS[match.kinds[at]],
                "concept_a": self.name(match.one, unit), "concept_b": self.name(match.other, partner),
                "iou_a": float(match.one.units.iou[unit]), "iou_b": float(match.other.units.iou[partner]),
                "difference": _difference(match.one, unit, match.other, partner),
            }  # fmt: skip
            if match.correlation is not None:
                row["correlation"] = float(match.correlation[at])
            rows.append(row)
        return {
            "from": match.one.letter, "to": match.other.letter, "matched_by": match.how, "pairs": len(rows),
            "changes": match.tally, "agreement": match.agreement, "agreement_by_chance": match.chance, "units": rows,
        }  # fmt: skip

    def name(self, side: Side, unit: int) -> str | None:
        """Label of a unit; None where there is none."""
        label = int(side.label[unit])
        return None if label < 0 else self.concepts[label][0]


def compare(store: Store, wanted: Sequence[str], match: str = "auto") -> Comparison:
    """Compare RUN, RUN:LAYER or RUN:* (all its layers by depth). match: one of MATCHES.

    Raises SpecError: fewer than two sides, unknown or unfinished runs, runs whose numbers do not compare.
    """
    found = [pair for text in wanted for pair in _layers(store, text, alone=len(wanted) == 1)]
    if len(found) < 2:
        raise SpecError(f"{wanted[0]} is one layer, nothing to compare: name two, as RUN or RUN:LAYER, or RUN:*")
    if len(found) > len(LETTERS):
        raise SpecError(f"{len(found)} layers are too many to compare at once: at most {len(LETTERS)}")
    notes = check([run for run, _ in found])
    known: dict[Concept, int] = {}
    kinds: dict[str, None] = {}
    sides = [_side(store, letter, *pair, known, kinds) for letter, pair in zip(LETTERS, found)]
    concepts, order = tuple(known), tuple(kinds)
    sides = [replace(side, concepts=concepts) for side in sides]
    matches = [pair for other in sides[1:] if (pair := match_units(sides[0], other, match)) is not None]
    return Comparison(tuple(sides), concepts, order, tuple(matches), tuple(notes))


def check(runs: Sequence[RunRecord]) -> list[str]:
    """What must be said beside a comparison of these runs. Raises SpecError where their numbers do not compare."""
    first = runs[0]
    for run in runs[1:]:
        if run.convention != first.convention:
            raise SpecError(
                f"{first.title!r} counts as {first.convention!r}, {run.title!r} as {run.convention!r}: different "
                "conventions for thresholds, masks or areas, so their IoUs do not compare; dissect them alike"
            )
    measured = {run.data_fingerprint: run for run in runs if run.state != "imported"}
    if len(measured) > 1:
        one, other = list(measured.values())[:2]
        raise SpecError(
            f"{one.title!r} used concept data {one.data_fingerprint[:12]}, {other.title!r} "
            f"{other.data_fingerprint[:12]}: different images or labels; dissect them on the same --data"
        )
    splits = {(run.split, run.spec.get("limit")) for run in runs if run.state != "imported"}
    notes = []
    if len(splits) > 1:
        notes.append("The runs used different images of the concept data (--split or --limit).")
    if any(run.state == "imported" for run in runs):
        notes.append("Imported runs do not say which images they used: concepts are compared by name.")
    return notes


def _layers(store: Store, text: str, alone: bool) -> list[tuple[RunRecord, StoredLayer]]:
    """The layers that RUN, RUN:LAYER or RUN:* names."""
    wanted: str | None = None
    try:
        run = store.get_run(text)
    except SpecError:
        name, colon, wanted = text.rpartition(":")
        if not colon:
            raise
        run = store.get_run(name)
    if run.state not in FINISHED:
        raise SpecError(f"run {run.title} is {run.state}: only finished runs can be compared")
    layers = store.layers(run.id)
    if wanted == "*" or (wanted is None and (alone or len(layers) == 1)):
        return [(run, layer) for layer in layers]
    if wanted is not None:
        return [(run, store.layer(run.id, wanted))]
    raise SpecError(
        f"run {run.title} has {len(layers)} layers ({', '.join(x.name for x in layers)}): "
        f"say which, as {run.title}:LAYER, or {run.title}:* for all"
    )


def _side(
    store: Store, letter: str, run: RunRecord, layer: StoredLayer, known: dict[Concept, int], kinds: dict[str, None]
) -> Side:
    """One side; `known` and `kinds` grow by concepts and categories that no side before had."""
    categories = {c.index: c.name for c in store.categories(run.id)}
    kinds.update(dict.fromkeys(categories.values()))
    concepts = [c for c in store.concepts(run.id) if c.name]
    largest = max((c.number for c in concepts), default=0)
    numbers: dict[int, int] = {}
    area, primary = np.zeros(largest + 1, np.int64), np.zeros(largest + 1, np.int64)
    for c in concepts:
        numbers[c.number] = known.setdefault((c.name or "", categories[c.category]), len(known))
        area[c.number], primary[c.number] = c.area, c.category
    units = store.units(layer)
    label = np.array([numbers.get(number, -1) for number in units.label.tolist()], np.int64)
    try:
        counts: np.ndarray | None = store.counts(layer)
    except DissectError:
        counts = None
    return Side(
        letter, run, layer, units, label, (), tuple(categories.values()), numbers, store.scores(layer),
        store.unit_areas(layer), area, primary, counts,
    )  # fmt: skip


def states_of_one_network(one: Side, other: Side) -> bool:
    """Whether unit u here is unit u there: the same layer of the same architecture, seen along the same basis."""
    return _architecture(one) == _architecture(other)


def _architecture(side: Side) -> tuple[object, ...]:
    model = side.run.model.removesuffix(":untrained")
    return model, side.layer.name, side.layer.units, side.run.spec.get("basis")


def match_units(one: Side, other: Side, how: str = "auto") -> Match | None:
    """Units of two sides; None where they cannot be matched that way (see the top of this file)."""
    if how not in MATCHES:
        raise SpecError(f"--match is {how!r}: expected one of {', '.join(MATCHES)}")
    alike = states_of_one_network(one, other)
    if how == "number" and one.layer.units != other.layer.units:
        raise SpecError(
            f"{one.title} has {one.layer.units} units, {other.title} {other.layer.units}: they cannot be matched by "
            "number; leave --match out"
        )
    if how == "number" or (how == "auto" and alike):
        every = np.arange(one.layer.units)
        return Match(one, other, "number", every, every, None)
    if how == "none":
        return None
    left, right = one.profile(), other.profile()
    if left is None or right is None:
        return None
    forth, back, correlation = best_partners(left, right)
    mutual = np.flatnonzero((back[forth] == np.arange(len(left))) & (correlation > 0))
    return Match(one, other, "profile", mutual, forth[mutual], correlation[mutual])


def best_partners(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[U] best partner of each left unit, [V] of each right one, and the correlation [U] with the former."""
    forth, top = np.zeros(len(left), np.int64), np.zeros(len(left))
    back, best = np.zeros(len(right), np.int64), np.full(len(right), -np.inf)
    for start in range(0, len(left), _ROWS):
        part = left[start : start + _ROWS] @ right.T
        forth[start : start + _ROWS] = part.argmax(axis=1)
        top[start : start + _ROWS] = part.max(axis=1)
        rows = part.argmax(axis=0)
        better = part[rows, np.arange(len(right))] > best
        best[better], back[better] = part[rows, np.arange(len(right))][better], start + rows[better]
    return forth, back, top


def by_category(side: Side, categories: Sequence[str]) -> dict[str, dict[str, int]]:
    """Detectors and their distinct labels in each category."""
    found = {name: {"detectors": 0, "unique_concepts": 0} for name in categories}
    for label, count in Counter(side.label[side.detector].tolist()).items():
        cell = found[side.concepts[label][1]]
        cell["detectors"] += count
        cell["unique_concepts"] += 1
    return found


def _difference(one: Side, unit: int, other: Side, partner: int) -> dict[str, float]:
    """Of two IoUs, the second less the first; with an interval where both have one."""
    a, b = float(one.units.iou[unit]), float(other.units.iou[partner])
    found = {"value": b - a}
    left, right = one.interval(unit), other.interval(partner)
    if left and right:
        low, high = difference_interval(a, left, b, right)
        found |= {"low": low, "high": high}
    return found


def difference_interval(a: float, of_a: Interval, b: float, of_b: Interval) -> Interval:
    """Of b - a from the intervals of both, which need not be symmetric (Zou and Donner 2008)."""
    return (
        b - a - math.hypot(b - of_b[0], of_a[1] - a),
        b - a + math.hypot(of_b[1] - b, a - of_a[0]),
    )


def share_difference(one: Side, other: Side, match: Match | None) -> tuple[float, Interval]:
    """Difference of the shares of detectors, the second less the first, with its interval over units."""
    n, m = one.layer.units, other.layer.units
    a, b = int(one.detector.sum()), int(other.detector.sum())
    value = b / m - a / n
    if match is not None and match.how == "number":
        changed, more = match.tally["gained"] + match.tally["lost"], n + 2
        middle = (b - a) / more
        half = _Z * math.sqrt(changed + 1 - (b - a) ** 2 / more) / more
        return value, (middle - half, middle + half)
    return value, difference_interval(a / n, wilson(a, n), b / m, wilson(b, m))


def wilson(count: int, total: int) -> Interval:
    """95 % interval of a share."""
    share, z = count / total, _Z * _Z / total
    half = math.sqrt(z * (share * (1 - share) + z / 4))
    return (share + z / 2 - half) / (1 + z), (share + z / 2 + half) / (1 + z)
