"""Store -> page objects -> reports. The only importer of `reports`.

What pages show comes from the database and the files beside it; pictures come from the concept data, if it is at
hand. Nothing that differs between two equal runs (times, folders) reaches a page.
"""

import hashlib
import html
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import broden
import reports
from dissect.errors import DissectError, SpecError
from dissect.store import ConceptRecord, ExemplarTable, RunRecord, Store, StoredLayer, UnitTable
from dissect.store.records import FINISHED
from reports import pages

BEST = 10  # concepts of a unit on its page
CACHE_BYTES = 512 << 20  # decoded thumbnails kept in memory
_CLOCKS = re.compile(
    r"(^|_)(disk_bytes|forwarded_again|threads|time|times|timings|date|created|finished|started|seconds|s|rss|host|hostname|pid|cwd|user)$"
)
_FOLDERS = re.compile(r"""(?<![^\s=:,;'"(\[])(?:~|[A-Za-z]:|\\)?[\\/](?:[^\s\\/'",:]+[\\/])*(?=[^\s\\/])""")


class DataImages:
    """Pictures and labels of a concept set by position; an image that is gone or broken is None."""

    def __init__(self, data: broden.Dataset, names: Mapping[int, str]) -> None:
        """`names`: what each position was called when the run was made; another name now means another image."""
        self._data, self._names = data, names
        self._kept: OrderedDict[tuple[int, int], np.ndarray | None] = OrderedDict()
        self._bytes = 0

    def _here(self, position: int) -> bool:
        return 0 <= position < len(self._data) and self._data.rows[position].image == self._names.get(position)

    def thumb(self, position: int, px: int) -> np.ndarray | None:
        """uint8 [px, px, 3], or None."""
        key = (position, px)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        try:
            found = self._data.read_image(position, px) if self._here(position) else None
        except broden.InputFault:
            found = None
        self._kept[key] = found
        self._bytes += 3 * px * px
        while self._bytes > CACHE_BYTES:
            (_, old), _ = self._kept.popitem(last=False)
            self._bytes -= 3 * old * old
        return found

    def labels(self, position: int) -> tuple[list[np.ndarray], list[int]] | None:
        """Planes [H, W] and whole-image labels, or None."""
        if not self._here(position):
            return None
        try:
            found = self._data.read_labels(position)
        except broden.InputFault:
            return None
        return list(found.planes), [int(s) for s in found.scalars if s]


@dataclass(frozen=True)
class _Layer:
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

    def cards(self, first: int, stop: int) -> list[pages.UnitCard]:
        """Cards of the units first <= u < stop."""
        units = np.arange(first, stop)
        starts, ends = (np.searchsorted(self.scores.unit, units, side) for side in ("left", "right"))
        seen, gone = (np.searchsorted(self.exemplars.unit, units, side) for side in ("left", "right"))
        by_category = self._by_category(first, stop)
        return [
            pages.UnitCard(
                u, self._scores(starts[k], ends[k]), by_category[k], self._exemplars(u, int(seen[k]), int(gone[k]))
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
        return pages.UnitColumns(
            label, i, a, np.asarray(u.iou, np.float64), np.asarray(u.threshold, np.float64), np.asarray(u.dead, bool),
            np.asarray(u.saturated, bool), np.asarray(u.nonfinite, np.int64),
        )  # fmt: skip

    def digest(self, seen: str) -> str:
        """Of everything that decides the layer's pages; `seen` stands for the pictures."""
        out = hashlib.sha256(f"{self.stored.name}\n{seen}\n{self.counts is not None}\n".encode())
        for table in (self.units, self.scores, self.exemplars):
            for name, column in vars(table).items():
                out.update(name.encode())
                out.update(repr(column.tolist()).encode() if column.dtype == object else column.tobytes())
        if self.maps is not None:
            out.update(np.ascontiguousarray(self.maps).data)
        return out.hexdigest()


def publish_run(
    store: Store, run: str, out: Path | None = None, data: Path | str | broden.Dataset | None = None,
    max_bytes: int = reports.DEFAULT_BYTES, progress: Callable[[int], None] = lambda units: None,
) -> reports.Written:  # fmt: skip
    """Write the report of a finished run into `out` (default: the workspace's reports/<name or id>).

    `data` is the concept data, for pictures; default: where the run found it. Without it the cards say so.
    Raises SpecError (unknown or unfinished run, other data than the run's), DissectError (the folder cannot be written
    or the byte budget is too small), OSError on a full disk.
    """
    record = store.get_run(run)
    page, images = run_page(store, record, data)
    out = out if out is not None else report_folder(store, record)
    try:
        return reports.write_run(page, out, images, max_bytes, progress)
    except reports.ReportError as error:
        raise DissectError(str(error)) from error


def report_folder(store: Store, record: RunRecord) -> Path:
    """Where a run's report goes: reports/<name, or id where the name cannot be a folder's>."""
    name = record.name or record.id
    plain = re.fullmatch(r"[\w.,+@=~()\[\]-][\w .,+@=~()\[\]-]{0,119}", name) and name not in (".", "..")
    return store.workspace.report_folder(name if plain and name[0] not in "._" else record.id)


def run_page(
    store: Store, record: RunRecord, data: Path | str | broden.Dataset | None = None
) -> tuple[pages.RunPage, DataImages | None]:
    """The page objects of a run and its pictures (None where the concept data is not at hand)."""
    if record.state not in FINISHED:
        raise SpecError(f"run {record.title} is {record.state}: a report needs a finished run; repeat `dissect run`")
    known = [c for c in store.concepts(record.id) if c.name]
    kinds = [c.name for c in store.categories(record.id)]
    concepts = tuple(pages.Concept(c.number, c.name or "", kinds[c.category], int(c.area), c.images) for c in known)
    layers = [_read_layer(store, record, layer, known) for layer in store.layers(record.id)]
    dataset, remark = _open_data(record, data)
    names = {
        int(position): str(image)
        for layer in layers
        for position, image in zip(layer.exemplars.image_position.tolist(), layer.exemplars.image.tolist())
    }
    images = DataImages(dataset, names) if dataset is not None else None
    seen = record.data_fingerprint if images is not None else "no pictures"
    excluded = store.excluded(record.id)
    page = pages.RunPage(
        id=record.id,
        name=record.title,
        model=_unfoldered(record.model or record.source),
        data=record.data_name,
        split=record.split,
        images=record.images,
        label_size=(record.label_h, record.label_w),
        quantile=record.quantile,
        cut=layers[0].stored.cut if layers else 0.04,
        convention=record.convention,
        categories=tuple(kinds),
        concepts=concepts,
        layers=tuple(
            pages.LayerPage(
                name=layer.stored.name, position=layer.stored.position,
                map_size=(layer.stored.map_h, layer.stored.map_w), units=layer.columns(), cards=layer.cards,
                digest=layer.digest(seen), activations=layer.stored.activations, top_k=layer.stored.top_k,
                unique_detectors=layer.stored.unique_detectors,
            )
            for layer in layers
        ),
        provenance=provenance(record, layers),
        honesty=tuple(honesty(record, layers, remark)),
        excluded=tuple(pages.Excluded(x.position, _unfoldered(x.file), _unfoldered(x.reason)) for x in excluded),
    )  # fmt: skip
    return page, images


def _read_layer(store: Store, record: RunRecord, layer: StoredLayer, known: Sequence[ConceptRecord]) -> _Layer:
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
    return _Layer(
        layer, units, store.scores(layer), store.exemplars(layer), maps, counts, store.unit_areas(layer),
        {c.number: c.category for c in known}, area,
    )  # fmt: skip


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


def _open_data(record: RunRecord, data: Path | str | broden.Dataset | None) -> tuple[broden.Dataset | None, str]:
    """The concept data of a run, or None and why. Data that was named and is not the run's is an error."""
    if isinstance(data, broden.Dataset):
        return data, ""
    named = data is not None
    place = data if data is not None else record.provenance.get("data_root")
    if place is None:
        return None, "The pictures are left out: the run does not say where its concept data is (--data names it)."
    limit = record.spec.get("limit")
    try:
        found = broden.open(place, split=record.split, limit=int(limit) if limit else None)
        same = not record.data_fingerprint or found.fingerprint == record.data_fingerprint
    except (broden.BrodenError, OSError) as error:
        if named:
            raise SpecError(f"concept data {place}: {error}") from error
        return None, "The pictures are left out: the concept data is not where the run found it (--data names it)."
    if not same:
        if named:
            raise SpecError(
                f"concept data {place} has fingerprint {found.fingerprint[:12]}, but run {record.title} used "
                f"{record.data_fingerprint[:12]}: name the folder that the run used, or leave --data out"
            )
        # Files that went missing change the fingerprint too; images are still matched by name, one by one.
        return found, "The concept data has changed since the run: pictures are those that have the same names now."
    return found, ""


def provenance(record: RunRecord, layers: Sequence[_Layer]) -> tuple[pages.Fact, ...]:
    """What is needed to repeat the run. Folders are cut from names, clocks are left out."""
    facts = [
        ("run", record.id),
        ("model", record.model or record.source),
        ("source", record.source),
        ("weights sha256", record.weights_sha256 or "none: random weights or unknown"),
        ("concept data", record.data_name),
        ("concept data fingerprint", record.data_fingerprint),
        ("split", record.split or "all rows"),
        ("images", str(record.images)),
        ("images set aside", str(record.excluded_images)),
        ("label maps", f"{record.label_h} x {record.label_w}"),
        ("convention", record.convention),
        ("quantile", repr(record.quantile)),
        ("code version", record.code_version or "unknown"),
    ]
    for layer in layers:
        s = layer.stored
        facts.append(
            (f"layer {s.name}", f"map {s.map_h} x {s.map_w}, n = {s.activations}, k = {s.top_k}, cut {s.cut:g}")
        )
    for title, values in (("spec", record.spec), ("", record.provenance)):
        for key, value in _flat(values):
            facts.append((f"{title} {key}".strip().replace("_", " "), value))
    return tuple(pages.Fact(_unfoldered(key), _unfoldered(value)) for key, value in facts)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for key in sorted(values):
        value = values[key]
        if _CLOCKS.search(key) or key in ("data_root", "command", "argv"):
            continue
        if isinstance(value, Mapping):
            out.extend(_flat(value, f"{prefix}{key}."))
        elif isinstance(value, list | tuple):
            out.append((prefix + key, ", ".join(str(v) for v in value)))
        elif value is not None:
            out.append((prefix + key, str(value)))
    return out


def _unfoldered(text: str) -> str:
    """The text with the folders of absolute paths cut off: the names stay."""
    return _FOLDERS.sub("", text)


def honesty(record: RunRecord, layers: Sequence[_Layer], remark: str) -> list[str]:
    """What a reader must know before believing the numbers."""
    out = []
    if record.convention == "exact":
        out.append("Thresholds are exact order statistics of all activations, and all counts are whole numbers.")
    elif record.state == "imported":
        out.append(f"These numbers were imported; this program did not compute them ({record.convention} convention).")
    else:
        out.append(f"Counts follow the published {record.convention} convention; other conventions give other IoU.")
    if record.excluded_images:
        out.append(f"{reports.plural(record.excluded_images, 'image')} could not be used and took part in nothing.")
    for layer in layers:
        u, name = layer.units, layer.stored.name
        odd = [
            f"{reports.plural(int(n), 'unit')} {word}"
            for n, word in (
                (u.dead.sum(), "dead (constant)"),
                (u.saturated.sum(), "saturated (empty mask)"),
                ((u.nonfinite > 0).sum(), "with values that are not finite"),
            )
            if n
        ]
        if odd:
            out.append(f"{name}: {', '.join(odd)}; shown, and never ranked as if sound.")
        if layer.stored.top_k == 0 and layer.stored.activations:
            out.append(f"{name}: too few images for the quantile; each threshold is the maximum.")
        close = int((np.abs(u.iou - layer.stored.cut) < 0.001).sum())
        if close:
            out.append(
                f"{name}: {reports.plural(close, 'unit')} within 0.001 of the cut; the count of detectors is that soft."
            )
    out.append("A label is the best match among the concepts of this data set; it need not be all that a unit does.")
    out.append("No baseline was measured: an IoU above the cut can come about by chance, most easily for textures.")
    if remark:
        out.append(remark)
    return out


def compare_page(store: Store, runs: Sequence[str], title: str | None = None) -> pages.ComparePage:
    """The page objects of a comparison. Each of `runs` is a run, or run:layer; the layer is needed where there are
    several. Raises SpecError (unknown, unfinished, ambiguous)."""
    columns: list[pages.ComparedLayer] = []
    concepts: tuple[pages.Concept, ...] = ()
    categories: tuple[str, ...] = ()
    first: tuple[RunRecord, StoredLayer] | None = None
    for text in runs:
        record, stored = _one_layer(store, text)
        if first is None:
            first = (record, stored)
            categories = tuple(c.name for c in store.categories(record.id))
            concepts = tuple(
                pages.Concept(c.number, c.name, categories[c.category], int(c.area), c.images)
                for c in store.concepts(record.id)
                if c.name
            )
        units = store.units(stored)
        same = (record.source, stored.name, stored.units) == (first[0].source, first[1].name, first[1].units)
        columns.append(
            pages.ComparedLayer(
                run=record.title, model=_unfoldered(record.model or record.source), layer=stored.name,
                convention=record.convention, data=record.data_fingerprint, cut=stored.cut, units=stored.units,
                concept=np.where(units.label > 0, units.label, -1).astype(np.int64),
                iou=np.asarray(units.iou, np.float64), link=f"../{report_folder(store, record).name}/index.html",
                same_units=same and len(columns) > 0,
            )
        )  # fmt: skip
    return pages.ComparePage(title or " and ".join(c.run for c in columns), concepts, categories, tuple(columns))


def _one_layer(store: Store, text: str) -> tuple[RunRecord, StoredLayer]:
    try:
        record, layer = store.get_run(text), None
    except SpecError:
        name, colon, layer = text.rpartition(":")
        if not colon:
            raise
        record = store.get_run(name)
    if record.state not in FINISHED:
        raise SpecError(f"run {record.title} is {record.state}: only finished runs can be compared")
    if layer is not None:
        return record, store.layer(record.id, layer)
    found = store.layers(record.id)
    if len(found) != 1:
        raise SpecError(
            f"run {record.title} has {len(found)} layers ({', '.join(x.name for x in found)}): "
            f"say which, as {record.title}:LAYER"
        )
    return record, found[0]


def publish_compare(store: Store, runs: Sequence[str], out: Path | None = None) -> Path:
    """Write the comparison of two to four runs; default folder: reports/compare-<hash>, and then the page of the
    workspace lists it. Returns its index page.

    Raises SpecError (unknown runs, mixed conventions or concept data).
    """
    page = compare_page(store, runs)
    key = hashlib.sha256("\n".join(f"{c.run}:{c.layer}" for c in page.columns).encode()).hexdigest()[:10]
    if out is not None:  # the reports of the runs are not beside it
        page = replace(page, columns=tuple(replace(column, link=None) for column in page.columns))
    try:
        index = reports.write_compare(page, out or store.workspace.report_folder(f"compare-{key}"))
    except reports.ReportError as error:
        raise SpecError(str(error)) from error
    if out is None:
        publish_workspace(store)
    return index


def publish_workspace(store: Store, title: str = "Dissections") -> Path:
    """Write reports/index.html with all runs of the workspace, and a page for each concept that a run detects."""
    folder = store.workspace.root / "reports"
    listed = []
    found: dict[tuple[str, str], list[pages.Sighting]] = {}
    for record in store.runs():
        own = report_folder(store, record).name
        there = (folder / own / "index.html").is_file()
        layers = store.layers(record.id)
        listed.append(
            pages.ListedRun(
                id=record.id, name=record.title, model=_unfoldered(record.model or record.source),
                data=record.data_name,
                state=record.state, convention=record.convention, images=record.images,
                layers=tuple(pages.ListedLayer(x.name, x.units, x.detectors, x.unique_concepts) for x in layers),
                link=f"{own}/index.html" if there else None, note=_unfoldered(record.error or ""),
            )
        )  # fmt: skip
        if record.state not in FINISHED:
            continue
        kinds = {c.index: c.name for c in store.categories(record.id)}
        concepts = {c.number: c for c in store.concepts(record.id) if c.name}
        for layer in layers:
            units = store.units(layer)
            chosen = np.flatnonzero((units.iou > layer.cut) & (units.label > 0))
            for number in np.unique(units.label[chosen]).tolist():
                mine = chosen[units.label[chosen] == number]
                best = int(mine[np.argmax(units.iou[mine])])
                concept = concepts[number]
                base = reports.layer_folder(layer.position, layer.name)
                link = f"{own}/{base}/index.html#concept={number}" if there else None
                found.setdefault((concept.name or "", kinds[concept.category]), []).append(
                    pages.Sighting(record.title, layer.name, len(mine), float(units.iou[best]), best, link)
                )
    sightings = tuple(
        pages.WorkspaceConcept(name, kind, tuple(sorted(rows, key=lambda s: (-s.best_iou, s.run, s.layer))))
        for (name, kind), rows in sorted(found.items())
    )
    comparisons = tuple(
        pages.Listed(_title(path), f"{path.parent.name}/index.html")
        for path in sorted(folder.glob("compare-*/index.html"))
    )
    return reports.write_workspace(pages.WorkspacePage(title, tuple(listed), sightings, comparisons), folder)


def _title(page: Path) -> str:
    """The title of a page that was written earlier."""
    found = re.search(r"<title>(.*?)</title>", page.read_text(encoding="utf-8"), re.DOTALL)
    return html.unescape(found[1]) if found else page.parent.name
