"""One layer: columns as the store has them, and cards made of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dissect.errors import DissectError
from dissect.publish.histogram import StoredHistogram
from dissect.publish.synthesis import of_units
from dissect.store import ConceptRecord, ExemplarTable, RunRecord, Store, StoredLayer, UnitTable
from reports import pages

BEST = 10  # concepts of a unit on its page


@dataclass(frozen=True)
class LayerTables:
    """Columns of one layer as the store has them, and what is found in them quickly."""

    stored: StoredLayer
    units: UnitTable
    scores: Any
    exemplars: ExemplarTable
    maps: np.ndarray | None
    counts: np.ndarray | None
    areas: np.ndarray
    primary: Mapping[int, int]
    concept_area: np.ndarray
    histogram: StoredHistogram | None
    made: Mapping[int, tuple[pages.Synthesis, ...]]

    def cards(self, first: int, stop: int) -> list[pages.UnitCard]:
        """Cards of the units first <= u < stop."""
        units = np.arange(first, stop)
        starts, ends = (np.searchsorted(self.scores.unit, units, side) for side in ("left", "right"))
        seen, gone = (np.searchsorted(self.exemplars.unit, units, side) for side in ("left", "right"))
        by_category = self._by_category(first, stop)
        return [
            pages.UnitCard(
                u,
                self._scores(starts[k], ends[k]),
                by_category[k],
                self._exemplars(u, int(seen[k]), int(gone[k])),
                self.histogram.of(u) if self.histogram is not None else None,
                self.made.get(u, ()),
            )
            for k, u in enumerate(range(first, stop))
        ]

    def _scores(self, start: int, end: int) -> tuple[pages.Score, ...]:
        s = self.scores
        part = slice(start, min(start + BEST, end))
        rows = zip(*(column[part].tolist() for column in (s.rank, s.concept, s.intersection, s.unit_area)))
        return tuple(pages.Score(c, i, a) for rank, c, i, a in rows if rank <= BEST)

    def _exemplars(self, unit: int, start: int, end: int) -> tuple[pages.Exemplar, ...]:
        e = self.exemplars
        out = []
        for at in range(start, end):
            slot = int(e.rank[at]) - 1
            own = None
            if self.maps is not None and slot < self.maps.shape[1]:
                own = np.asarray(self.maps[unit, slot], dtype=np.float32)
            out.append(
                pages.Exemplar(
                    int(e.image_position[at]), str(e.image[at]), float(e.activation[at]), int(e.row[at]),
                    int(e.column[at]), own,
                )
            )  # fmt: skip
        return tuple(out)

    def _by_category(self, first: int, stop: int) -> list[tuple[pages.Score, ...]]:
        """Best concept of each category, from the complete counts; from the stored pairs where those are gone."""
        kinds = self.areas.shape[1]
        out: list[list[tuple[float, int, pages.Score]]] = [[] for _ in range(stop - first)]
        if self.counts is not None:
            block = np.asarray(self.counts[first:stop], dtype=np.int64)
            primary = np.full(block.shape[1], -1)
            for number, kind in self.primary.items():
                if number < len(primary):
                    primary[number] = kind
            for kind in range(kinds):
                numbers = np.flatnonzero(primary == kind)
                if not len(numbers):
                    continue
                i = block[:, numbers]
                union = self.areas[first:stop, kind, None] + self.concept_area[numbers] - i
                scores = np.divide(i, union, out=np.zeros(i.shape), where=i > 0)
                best = scores.argmax(axis=1)
                for k, column in enumerate(best.tolist()):
                    if scores[k, column] > 0:
                        score = pages.Score(int(numbers[column]), int(i[k, column]), int(self.areas[first + k, kind]))
                        out[k].append((-float(scores[k, column]), -kind, score))
        else:
            s = self.scores
            for k in range(stop - first):
                start, end = (int(np.searchsorted(s.unit, first + k, side)) for side in ("left", "right"))
                known: set[int] = set()
                for at in range(start, end):
                    kind = self.primary[int(s.concept[at])]
                    if kind not in known:
                        known.add(kind)
                        score = pages.Score(int(s.concept[at]), int(s.intersection[at]), int(s.unit_area[at]))
                        out[k].append((-float(s.iou[at]), -kind, score))
        return [tuple(score for _, _, score in sorted(row, key=lambda r: r[:2])) for row in out]

    def columns(self) -> pages.UnitColumns:
        """The label of each unit with its integers."""
        u, s = self.units, self.scores
        label = np.where(u.label > 0, u.label, -1).astype(np.int64)
        i, a = np.zeros(len(label), np.int64), np.zeros(len(label), np.int64)
        mine = s.concept == label[s.unit] if len(s.unit) else np.zeros(0, bool)
        i[s.unit[mine]], a[s.unit[mine]] = s.intersection[mine], s.unit_area[mine]

        def of_label(column: np.ndarray | None) -> np.ndarray | None:
            out = np.full(len(label), np.nan)
            if column is not None:
                out[s.unit[mine]] = column[mine]
            return _given(out)

        return pages.UnitColumns(
            label, i, a, np.asarray(u.iou, np.float64), np.asarray(u.threshold, np.float64), np.asarray(u.dead, bool),
            np.asarray(u.saturated, bool), np.asarray(u.nonfinite, np.int64), low=of_label(s.iou_low),
            high=of_label(s.iou_high), null=_given(u.iou_null), p=_given(u.p_value), q=_given(u.q_value),
            stability=_given(u.stability), phi=of_label(s.phi), iqr=of_label(s.iqr), ap=of_label(s.ap),
        )  # fmt: skip

    def digest(self, seen: str) -> str:
        """Of everything that decides the layer's pages; `seen` stands for the pictures."""
        out = hashlib.sha256(f"{self.stored.name}\n{seen}\n{self.counts is not None}\n".encode())
        for table in (self.units, self.scores, self.exemplars):
            for name, column in vars(table).items():
                out.update(name.encode())
                if column is not None:
                    out.update(repr(column.tolist()).encode() if column.dtype == object else column.tobytes())
        if self.maps is not None:
            out.update(np.ascontiguousarray(self.maps).data)
        if self.histogram is not None:
            out.update(np.ascontiguousarray(self.histogram.counts).data)
        for unit, made in self.made.items():
            for one in made:
                file = one.read()
                out.update(f"{unit} {one.title} {one.note} {file is None}\n".encode() + (file or b""))
        return out.hexdigest()


def read_layer(store: Store, record: RunRecord, layer: StoredLayer, known: Sequence[ConceptRecord]) -> LayerTables:
    try:
        counts: np.ndarray | None = store.counts(layer)
    except DissectError:
        counts = None
    largest = max((c.number for c in known), default=0)
    area = np.zeros(max(largest + 1, counts.shape[1] if counts is not None else 0), np.int64)
    for c in known:
        area[c.number] = c.area
    units = store.units(layer)
    maps = _maps(store.workspace.cache_folder(record.id) / f"{layer.position}-exemplar-maps.npy", layer, units)
    return LayerTables(
        layer, units, store.scores(layer), store.exemplars(layer), maps, counts, store.unit_areas(layer),
        {c.number: c.category for c in known}, area,
        StoredHistogram.open(*store.workspace.histogram_files(record.id, layer.position), len(units.threshold)),
        of_units(store, record, layer.name),
    )  # fmt: skip


def _given(column: np.ndarray | None) -> np.ndarray | None:
    """A column that says something about at least one unit, else None."""
    return None if column is None or np.isnan(column).all() else np.asarray(column, np.float64)


def _maps(path: Path, layer: StoredLayer, units: UnitTable) -> np.ndarray | None:
    """Activation maps of the exemplars [U, E, h, w], memory-mapped; None where there are none or not this layer's."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    if found.ndim != 4 or len(found) != len(units.threshold):
        return None
    extra = (found.shape[2] - layer.map_h, found.shape[3] - layer.map_w)
    if extra == (2, 2):  # a convention that pads: the ring is not part of the picture
        return found[:, :, 1:-1, 1:-1]
    return found if extra == (0, 0) else None
