"""Any labelled images become concept data in Broden's format.

Two passes over images in pieces of 64. The first converts: it writes pictures, and for each piece a work file with
planes of local concepts and counts. Then concepts are filtered and numbered. The second pass translates the work
files to label planes. Finished pieces are kept, so that a build that was stopped goes on; index.csv is written last.
The same sources and spec give the same bytes, whatever the processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from broden.building.convert import Converted, Target, convert
from broden.building.names import NameRules
from broden.building.spec import BuildSpec, read_spec
from broden.colours import read_table, rule_table
from broden.counting import united
from broden.decode import encode_plane
from broden.describing import decoders
from broden.errors import DataError, InputFault
from broden.packed import decode_planes, encode_planes
from broden.parallel import cores, ordered
from broden.paths import Root, fault_in
from broden.progress import OnProgress
from broden.schema import CATEGORIES
from broden.sources import open_source
from broden.sources.base import Source, stem
from broden.tables import table_bytes
from broden.writing import (
    CHECKSUM_COLUMNS,
    CHECKSUMS,
    IndexRow,
    Tally,
    assign,
    checksum,
    index_bytes,
    plane_names,
    space,
)

if TYPE_CHECKING:
    from broden.dataset import Dataset

CHUNK = 64
WORK = ".building"
FAULTS = "faults.csv"
PROVENANCE = "build.json"


@dataclass(frozen=True)
class _Shared:
    """What every worker needs: sources as tables, or as objects when there is only this process."""

    out: str
    sources: tuple[Any, ...]
    target: Target
    number: Mapping[str, int] | None = None


@dataclass(frozen=True)
class _Piece:
    """Images start .. stop - 1 of a source, and the names they get."""

    number: int
    source: int
    start: int
    stop: int
    names: tuple[str, ...]


_opened: dict[int, tuple[Any, Source]] = {}


def _source(shared: _Shared, index: int) -> Source:
    table = shared.sources[index]
    if isinstance(table, Source):
        return table
    held = _opened.get(index)
    if held is None or held[0] != table:
        held = _opened[index] = (table, open_source({k: v for k, v in table.items() if k != "limit"}))
    return held[1]


def _write(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    partial.rename(path)


def convert_piece(shared: _Shared, piece: _Piece) -> dict[str, Any]:
    """First pass over a piece; returns the head of its work file, without the planes."""
    work = Path(shared.out) / WORK / f"piece-{piece.number:06d}.work"
    if work.exists():
        return _head(work)[0]
    source = _source(shared, piece.source)
    keys: list[tuple[str, str]] = []
    rows: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    faults: list[tuple[str, str, str]] = []
    synonyms: dict[str, set[str]] = {}
    tally = Tally(int(np.prod(shared.target.label_size)))
    for index, name in zip(range(piece.start, piece.stop), piece.names, strict=True):
        try:
            done = convert(source.read(index), shared.target)
        except InputFault as fault:
            faults.append((name, fault.file, fault.reason))
            continue
        for kind, also in done.synonyms.items():
            synonyms.setdefault(kind, set()).update(also)
        path = Path(shared.out) / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, done.jpeg)
        row, blob = _record(done, keys, tally)
        rows.append({"image": name, "sum": checksum(f"images/{name}", done.jpeg), **row})
        blobs.append(blob)
    head = {
        "keys": keys,
        "rows": rows,
        "faults": faults,
        "synonyms": {name: sorted(also) for name, also in sorted(synonyms.items())},
        "tally": [(*key, tally.frequency[key], tally.pixels[key]) for key in tally.frequency],
    }
    text = json.dumps(head).encode()
    _write(work, len(text).to_bytes(8, "little") + text + b"".join(blobs))
    return head


def _record(done: Converted, keys: list[tuple[str, str]], tally: Tally) -> tuple[dict[str, Any], bytes]:
    """Row of a work file, and its planes with numbers 1 + place in `keys`; counts the image."""
    planes: list[np.ndarray] = []
    kinds: list[str] = []
    for category, layers in done.planes.items():
        for names, index in layers:
            table = np.zeros(len(names), np.uint16)
            for place in np.unique(index[index > 0]).tolist():
                table[place] = 1 + _place(keys, (category, names[place]))
            planes.append(table[index])
            kinds.append(category)
        stack = united(np.stack(planes[len(planes) - len(layers) :]))
        for number, pixels in enumerate(np.bincount(stack.reshape(-1)).tolist()):
            if number and pixels and (*keys[number - 1],) not in done.scalars:
                tally.add(keys[number - 1], pixels)
    for key in done.scalars:
        tally.add(key, tally.area)
    blob = encode_planes(np.stack(planes)) if planes else b""
    scalars = [1 + _place(keys, key) for key in done.scalars]
    return {"planes": kinds, "scalars": scalars, "bytes": len(blob)}, blob


def _place(keys: list[tuple[str, str]], key: tuple[str, str]) -> int:
    if key not in keys:
        keys.append(key)
    if len(keys) > 65535:
        raise DataError("label.csv", None, "more than 65,535 concepts in 64 images; a label plane cannot number them")
    return keys.index(key)


def _head(work: Path) -> tuple[dict[str, Any], bytes]:
    data = work.read_bytes()
    size = int.from_bytes(data[:8], "little")
    head: dict[str, Any] = json.loads(data[8 : 8 + size])
    return head, data[8 + size :]


def translate_piece(shared: _Shared, piece: _Piece) -> list[tuple[str, dict[str, str], list[tuple[str, int, str]]]]:
    """Second pass: write the label planes of a piece; returns rows of index.csv and checksums."""
    done = Path(shared.out) / WORK / f"piece-{piece.number:06d}.done"
    if done.exists():
        found: list[Any] = json.loads(done.read_bytes())
        return [(image, cells, [tuple(item) for item in sums]) for image, cells, sums in found]
    assert shared.number is not None
    head, blobs = _head(done.with_suffix(".work"))
    numbers = np.array([0, *(shared.number.get("\0".join(key), 0) for key in head["keys"])], np.uint16)
    rows: list[tuple[str, dict[str, str], list[tuple[str, int, str]]]] = []
    at = 0
    for row in head["rows"]:
        blob = memoryview(blobs)[at : at + row["bytes"]]
        at += row["bytes"]
        planes, _ = decode_planes(blob, len(row["planes"]), shared.target.label_size)
        planes = numbers[planes]
        cells: dict[str, list[str]] = {}
        sums = [tuple(row["sum"])]
        for category in dict.fromkeys(row["planes"]):
            kept = [p for p, kind in zip(planes, row["planes"], strict=True) if kind == category and p.any()]
            for name, plane in zip(plane_names(stem(row["image"]), category, len(kept)), kept, strict=True):
                data = encode_plane(plane)
                _write(Path(shared.out) / "images" / name, data)
                sums.append(checksum(f"images/{name}", data))
                cells.setdefault(category, []).append(name)
        for place in row["scalars"]:
            # A concept that was filtered away leaves the cell: label 0 would count for something in old loaders.
            if numbers[place]:
                cells.setdefault(head["keys"][place - 1][0], []).append(str(int(numbers[place])))
        rows.append((row["image"], {c: ";".join(items) for c, items in cells.items()}, sums))
    _write(done, json.dumps(rows).encode())
    return rows


def output_name(source: str, name: str) -> str:
    """Name of an image in the set: the source's folder, and the stem with anything unusual replaced."""
    return f"{source}/{re.sub(r'[^A-Za-z0-9.+=-]', '_', stem(name).replace('/', '_'))}.jpg"


def _pieces(sources: Sequence[Source], tables: Sequence[Any]) -> list[_Piece]:
    """All images of all sources in pieces. Raises DataError if two would get one name."""
    pieces: list[_Piece] = []
    taken: dict[str, str] = {}
    for number, (source, table) in enumerate(zip(sources, tables, strict=True)):
        limit = table.get("limit") if isinstance(table, Mapping) else None
        total = len(source) if limit is None else min(len(source), int(limit))
        names = []
        for index in range(total):
            given = source.image_name(index)
            name = output_name(source.name, given)
            if name.casefold() in taken:
                text = f"images {taken[name.casefold()]!r} and {given!r} would both be {name!r}"
                raise DataError("spec", None, text)
            taken[name.casefold()] = given
            names.append(name)
        for start in range(0, total, CHUNK):
            stop = min(start + CHUNK, total)
            pieces.append(_Piece(len(pieces), number, start, stop, tuple(names[start:stop])))
    if not pieces:
        raise DataError("spec", None, "the sources hold no images")
    return pieces


def _filtered(tally: Tally, spec: BuildSpec) -> Tally:
    """Concepts with enough images and coverage, over all their categories."""
    images: dict[str, int] = {}
    pixels: dict[str, int] = {}
    for (_, name), count in tally.frequency.items():
        images[name] = images.get(name, 0) + count
    for (_, name), count in tally.pixels.items():
        pixels[name] = pixels.get(name, 0) + count
    kept = Tally(tally.area)
    for key in tally.frequency:
        if images[key[1]] >= spec.min_images and pixels[key[1]] >= spec.min_coverage * tally.area:
            kept.add(key, tally.pixels[key], tally.frequency[key])
    return kept


def build(
    spec: BuildSpec | str | os.PathLike[str],
    out: str | os.PathLike[str],
    workers: int | None = None,
    progress: OnProgress | None = None,
) -> Dataset:
    """Build a set from a spec (or the TOML file of one) into the folder `out`, and open it.

    Images that cannot be used are left out and listed in faults.csv (image, file, reason). Started again after a
    stop, it goes on. Sources given as objects run in this process. Raises DataError, SpaceFault.
    """
    from broden.dataset import open as open_set

    spec = spec if isinstance(spec, BuildSpec) else read_spec(Path(spec))
    target = Path(out)
    table = None
    if spec.colors is not False:
        table = rule_table() if spec.colors is True else read_table(Path(str(spec.colors)))
    goal = Target(spec.size, spec.label_size, spec.fit, spec.quality, table, spec.names)
    shared = _Shared(str(target), tuple(spec.sources), goal)
    sources = [_source(shared, index) for index in range(len(spec.sources))]
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise DataError("spec", None, f"two sources are named {max(names, key=names.count)!r}; give each its own name")
    bad = next((name for name in names if fault_in(name) is not None or "/" in name), None)
    if bad is not None:
        raise DataError("spec", None, f"source name {bad!r} cannot name a folder")
    pieces = _pieces(sources, spec.sources)
    for source in sources:
        root = getattr(source, "root", None)
        if isinstance(root, Root) and target.resolve().is_relative_to(root.path):
            raise DataError(str(target), None, f"lies inside the source {source.name!r}; choose another folder")
    ours = any(isinstance(entry, Source) for entry in spec.sources)
    count = 1 if ours else min(workers or cores(), len(pieces))
    _begin(target, spec, pieces)
    try:
        _run(shared, spec, pieces, count, progress)
    except OSError as error:
        if isinstance(error, InputFault):
            raise
        raise space(error, target) from error
    finally:
        _opened.clear()
    return open_set(target)


def _run(shared: _Shared, spec: BuildSpec, pieces: list[_Piece], count: int, progress: OnProgress | None) -> None:
    """Both passes, then the tables; index.csv comes last."""
    target = Path(shared.out)
    total = sum(piece.stop - piece.start for piece in pieces)

    def each(name: str, phase: str, job: _Shared) -> Iterator[Any]:
        done = 0
        for piece, result in zip(pieces, ordered(__name__, name, job, pieces, count), strict=True):
            yield result
            done += piece.stop - piece.start
            if progress:
                progress(phase, done, total)

    tally = Tally(int(np.prod(spec.label_size)))
    faults: list[tuple[str, str, str]] = []
    synonyms: dict[str, set[str]] = {}
    for head in each("convert_piece", "converting", shared):
        faults += [tuple(fault) for fault in head["faults"]]
        for category, name, frequency, pixels in head["tally"]:
            tally.add((category, name), pixels, frequency)
        for name, also in head["synonyms"].items():
            synonyms.setdefault(name, set()).update(also)
    order = [*CATEGORIES, *sorted({category for category, _ in tally.frequency} - set(CATEGORIES))]
    kept = _filtered(tally, spec)
    if not kept.frequency:
        text = f"no concept has {spec.min_images} images and {spec.min_coverage} of coverage; lower the filters"
        raise DataError("spec", None, text)
    given = {name: sorted(_others(name, also)) for name, also in synonyms.items()}
    numbering = assign(kept, order, given)
    keyed = {"\0".join(key): numbering.number[key[1]] for key in kept.frequency}
    rows: list[IndexRow] = []
    sums: list[tuple[str, int, str]] = []
    for part in each("translate_piece", "writing", replace(shared, number=keyed)):
        for image, cells, items in part:
            rows.append(IndexRow(image, cells))
            sums += items
    if not rows:
        raise DataError("spec", None, f"none of {total} images can be used; the first: {faults[0][1]}: {faults[0][2]}")
    tables = dict(numbering.tables)
    tables[FAULTS] = table_bytes(("image", "file", "reason"), faults)
    tables[PROVENANCE] = (json.dumps(_provenance(spec), indent=1, sort_keys=True) + "\n").encode()
    index = index_bytes(rows, numbering.categories, spec.size, spec.label_size)
    sums += [checksum(name, data) for name, data in (*tables.items(), ("index.csv", index))]
    tables[CHECKSUMS] = table_bytes(CHECKSUM_COLUMNS, sums)
    for name, data in tables.items():
        _write(target / name, data)
    _write(target / "index.csv", index)
    shutil.rmtree(target / WORK)


def _others(name: str, also: set[str]) -> set[str]:
    """Synonyms worth listing: what sources say besides the name itself."""
    plain = {other.replace(";", ",").strip() for other in also}
    return {other for other in plain if other and other.lower() not in (name, name[:-2])}


def _provenance(spec: BuildSpec) -> dict[str, Any]:
    """Spec and decoders, without absolute paths: a moved source is the same source."""
    sources = [
        {**{k: v for k, v in s.items() if k != "path"}, "path": Path(s["path"]).name}
        if isinstance(s, Mapping)
        else {"kind": type(s).__name__, "name": s.name}
        for s in spec.sources
    ]
    rules = asdict(spec.names)
    names = {k: sorted(v) if isinstance(v, frozenset) else dict(v) for k, v in rules.items()}
    colors = Path(spec.colors).name if isinstance(spec.colors, str) else spec.colors
    plain = {"size": spec.size, "label_size": spec.label_size, "fit": spec.fit, "quality": spec.quality}
    limits = {"min_images": spec.min_images, "min_coverage": spec.min_coverage, "colors": colors}
    return {**plain, **limits, "names": names, "sources": sources, "decoders": decoders()}


def _begin(target: Path, spec: BuildSpec, pieces: Sequence[_Piece]) -> None:
    """Make `target`, or find the beginning of the same build there. Raises DataError."""
    listing = hashlib.sha256("\n".join(name for piece in pieces for name in piece.names).encode()).hexdigest()
    text = json.dumps({**_provenance(spec), "images": listing}, sort_keys=True)
    mark = target / WORK / "spec.json"
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        if not mark.is_file() or mark.read_text(encoding="utf-8") != text:
            raise DataError(str(target), None, "exists and is not the beginning of this build; choose another folder")
        return
    mark.parent.mkdir(parents=True)
    (target / "images").mkdir()
    mark.write_text(text, encoding="utf-8")


__all__ = ["BuildSpec", "NameRules", "build", "read_spec"]
