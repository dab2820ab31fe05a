"""Packing a folder, unpacking it again, and checking a pack."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from broden import decode
from broden.counting import Counts
from broden.dataset import PACK_FILE, FolderDataset
from broden.errors import DataError, InputFault
from broden.fingerprint import tables_of
from broden.index import Tables, read_tables
from broden.packed import (
    ENTRY,
    FOOTER,
    IMAGE_FAULT,
    MAGIC,
    PLAIN_JPEG,
    PLANES_FAULT,
    RAW_PIXELS,
    VERSION,
    PackedDataset,
    encode_planes,
    fast_decoder,
    header_digest,
)
from broden.parallel import cores, ordered
from broden.paths import Root
from broden.progress import OnProgress
from broden.schema import Row
from broden.verifying import Finding, Report
from broden.writing import CHECKSUMS, FACTS, new_folder, space

SHARD_IMAGES = 512
STATE = "packing.json"


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.broden"


def _fault_bytes(fault: InputFault) -> bytes:
    return json.dumps({"file": fault.file, "reason": fault.reason}).encode()


def _pack_image(data: FolderDataset, row: Row, pixels: bool, quick: Any) -> tuple[bytes, int, int]:
    """Bytes of the picture part, CRC-32 of its pixels, flags."""
    try:
        raw = data.read_bytes(row.image)
        rgb = data.decode_image(row.image, raw, None)
    except InputFault as fault:
        return _fault_bytes(fault), 0, IMAGE_FAULT
    crc = zlib.crc32(rgb.tobytes())
    if pixels:
        return rgb.tobytes(), crc, RAW_PIXELS
    flags = 0
    if quick is not None and raw[:3] == b"\xff\xd8\xff":
        try:
            flags = PLAIN_JPEG if np.array_equal(quick(raw), rgb) else 0
        except InputFault:
            flags = 0
    return raw, crc, flags


def pack_shard(shared: tuple[str, str, Tables, bool], task: tuple[int, int, Sequence[Row]]) -> dict[str, Any]:
    """Write one shard (temporary name, then rename) unless it is there already; returns its line of pack.json."""
    source, out, tables, pixels = shared
    number, first, rows = task
    target = Path(out) / shard_name(number)
    if not target.exists():
        _write_shard(FolderDataset(Root(source), tables), target, rows, pixels)
    digest = hashlib.sha256()
    with target.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    size = target.stat().st_size
    return {"file": target.name, "first": first, "images": len(rows), "bytes": size, "sha256": digest.hexdigest()}


def _write_shard(data: FolderDataset, target: Path, rows: Sequence[Row], pixels: bool) -> None:
    quick = fast_decoder()
    entries = np.zeros(len(rows), ENTRY)
    partial = target.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(MAGIC)
        offset = len(MAGIC)
        for index, row in enumerate(rows):
            image, crc, flags = _pack_image(data, row, pixels, quick)
            try:
                planes = encode_planes(data.read_row_planes(row))
            except InputFault as fault:
                planes, flags = _fault_bytes(fault), flags | PLANES_FAULT
            entries[index] = (offset, len(image), len(planes), zlib.crc32(image), zlib.crc32(planes), crc, flags)
            file.write(image)
            file.write(planes)
            offset += len(image) + len(planes)
        table = entries.tobytes()
        file.write(table)
        file.write(FOOTER.pack(offset, len(rows), zlib.crc32(table), ENTRY.itemsize, MAGIC))
        file.flush()
        os.fsync(file.fileno())
    partial.rename(target)


def pack(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    pixels: bool = False,
    shard_images: int = SHARD_IMAGES,
    workers: int | None = None,
    progress: OnProgress | None = None,
) -> PackedDataset:
    """Pack the Broden-format folder `source` into the folder `out` and open it.

    Pictures are kept as the bytes of their files (smaller than the original set, byte-exact way back) or, with
    `pixels`, as raw RGB (about ten times larger, several times faster to read). Started again after a stop, it
    goes on with the shards that are missing. Raises DataError, SpaceFault.
    """
    if not 1 <= shard_images <= 65536:
        raise ValueError(f"shard_images is {shard_images}; expected 1..65,536")
    root = Root(source)
    if root.exists(PACK_FILE):
        raise DataError(str(source), None, "is packed already")
    tables = read_tables(root)
    data = FolderDataset(root, tables)
    target = Path(out)
    if target.resolve().is_relative_to(root.path):
        raise DataError(str(out), None, "lies inside the set itself; choose another folder")
    state = {"version": VERSION, "fingerprint": data.fingerprint, "pixels": pixels, "shard_images": shard_images}
    _begin(target, state)
    rows = tables.rows
    firsts = range(0, len(rows), shard_images)
    tasks = [(number, first, rows[first : first + shard_images]) for number, first in enumerate(firsts)]
    bare = Tables(tables.categories, tables.labels, (), tables.image_size, tables.label_size)
    shards = []
    done = 0
    wanted = min(workers or cores(), len(tasks))
    try:
        for shard in ordered(__name__, "pack_shard", (str(root.path), str(target), bare, pixels), tasks, wanted):
            shards.append(shard)
            done += shard["images"]
            if progress:
                progress("packing", done, len(rows))
        sums = {}
        extra = [name for name in (FACTS, CHECKSUMS) if root.exists(name)]
        there = [name for name in tables_of(tables.categories) if root.exists(name)]
        for name in (*there, *extra):
            content = root.read(name, 2**31)
            (target / name).write_bytes(content)
            sums[name] = hashlib.sha256(content).hexdigest()
        header: dict[str, Any] = {"name": data.name, **state, "images": len(rows), "tables": sums, "shards": shards}
        header["digest"] = header_digest(header)
        partial = target / f"{PACK_FILE}.partial"
        partial.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
        partial.rename(target / PACK_FILE)
        (target / STATE).unlink()
    except OSError as error:
        raise space(error, target) from error
    return PackedDataset(Root(target))


def _begin(target: Path, state: dict[str, Any]) -> None:
    """Make `target`, or find that it holds the beginning of the same work. Raises DataError."""
    text = json.dumps(state)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        mark = target / STATE
        if not mark.is_file() or mark.read_text(encoding="utf-8") != text:
            raise DataError(str(target), None, "exists and is not the beginning of this pack; choose another folder")
        return
    target.mkdir(parents=True, exist_ok=True)
    (target / STATE).write_text(text, encoding="utf-8")


def unpack_span(shared: tuple[str, str], span: tuple[int, int]) -> int:
    """Write the files of rows span[0] .. span[1] - 1; returns how many could not be written."""
    source, out = shared
    data = _opened(source)
    images = Path(out) / "images"
    faults = 0
    for origin in range(*span):
        row = data.all_rows[origin]
        try:
            files = {row.image: data.read_file(origin)}
            labels = data.read_labels(origin)
            for (_, name), plane in zip(row.planes, labels.planes, strict=True):
                files[name] = decode.encode_plane(plane)
        except InputFault:
            faults += 1
            continue
        for name, content in files.items():
            path = images / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return faults


_held: dict[str, PackedDataset] = {}


def _opened(source: str) -> PackedDataset:
    if source not in _held:
        _held.clear()
        _held[source] = PackedDataset(Root(source))
    return _held[source]


def unpack(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    workers: int | None = None,
    progress: OnProgress | None = None,
) -> int:
    """Write a packed set as a Broden-format folder: pictures and tables byte for byte, planes pixel for pixel.

    Returns the number of images that were broken when packed and are left out of the files (their rows stay).
    Raises DataError, SpaceFault.
    """
    root = Root(source)
    if not root.exists(PACK_FILE):
        raise DataError(str(source), None, f"no {PACK_FILE}; expected a packed set")
    data = PackedDataset(root)
    for origin in range(len(data)):
        shard, index = data.record(origin)
        if int(shard.entries[index]["flags"]) & RAW_PIXELS:
            raise DataError(str(source), None, "was packed as pixels; the files of its pictures are not kept")
        break
    spans = [(shard.first, shard.first + shard.images) for shard in data.shards]
    faults = 0
    with new_folder(Path(out)) as folder:
        (folder / "images").mkdir()
        for name in data.header.tables:
            # checksums.csv speaks of the original PNG files, which are written anew.
            if name != CHECKSUMS:
                (folder / name).write_bytes(root.read(name, 2**31))
        wanted = min(workers or cores(), len(spans))
        results = ordered(__name__, "unpack_span", (str(root.path), str(folder)), spans, wanted)
        for (_, stop), bad in zip(spans, results, strict=True):
            faults += bad
            if progress:
                progress("unpacking", stop, len(data))
    _held.clear()
    return faults


def check_shard(source: str, number: int) -> tuple[list[Finding], int, Counts]:
    """sha256 of a shard and everything in it: faults, images at fault, counts."""
    data = _opened(source)
    info = data.shards[number]
    faults: list[Finding] = []
    counts = Counts.empty(len(data.categories), len(data.labels))
    root = Root(source)
    excluded = 0
    try:
        digest = hashlib.sha256()
        with os.fdopen(root.open(info.file), "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
        if digest.hexdigest() != info.sha256:
            faults.append(Finding(info.file, None, "content is not what pack.json says"))
    except InputFault as fault:
        faults.append(Finding(fault.file, None, fault.reason))
    for origin in range(info.first, info.first + info.images):
        row = data.all_rows[origin]
        bad, labels = data.check_record(origin)
        faults += [Finding(fault.file, row.line, fault.reason) for fault in bad]
        excluded += bool(bad)
        if labels is not None:
            counts.update(row, labels)
    return faults, excluded, counts


def verify_pack(root: Root, report: Report, workers: int, progress: OnProgress | None) -> Report:
    """Check tables, shards and every record of a packed set."""
    try:
        data = PackedDataset(root)
    except DataError as error:
        report.faults.append(Finding(error.file, error.row, error.reason))
        return report
    report.images = len(data)
    report.files = len(data.shards) + len(data.header.tables)
    for name, wanted in data.header.tables.items():
        try:
            good = hashlib.sha256(root.read(name, 2**31)).hexdigest() == wanted
            reason = "content is not what pack.json says"
        except InputFault as fault:
            good, reason = False, fault.reason
        if not good:
            report.faults.append(Finding(name, None, reason))
    results = ordered(__name__, "check_shard", str(root.path), range(len(data.shards)), min(workers, len(data.shards)))
    for info, (faults, excluded, _) in zip(data.shards, results, strict=True):
        report.faults += faults
        report.excluded += excluded
        if progress:
            progress("verifying", info.first + info.images, len(data))
    _held.clear()
    return report
