"""The packed form of a set: a folder of checksummed shards that the reader maps into memory.

    pack.json           version, sizes, fingerprint of the set that was packed, shards with sha256
    *.csv               the tables, byte for byte
    shard-00000.broden  records of consecutive rows of index.csv, then their directory

A record is the picture (the bytes of its file, or raw RGB pixels) and one blob for all its label planes (runs of
equal labels, deflated; see `encode_planes`). A directory entry holds offset, sizes, CRC-32 of
both parts, CRC-32 of the decoded pixels and flags. Pictures and planes that could not be read when the set was
packed keep their place and give the same fault. A shard is a natural unit of distributed work.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from broden import decode
from broden.dataset import PACK_FILE, Dataset, Size, as_size
from broden.errors import DataError, InputFault
from broden.index import read_tables
from broden.paths import Root
from broden.schema import ImageLabels, Row

VERSION = 1
MAGIC = b"BRODEN\x01\n"
FOOTER = struct.Struct("<QIII8s")
"""Offset of the directory, records, CRC-32 of the directory, size of an entry, magic."""
ENTRY = np.dtype(
    [
        ("offset", "<u8"),
        ("image", "<u4"),
        ("planes", "<u4"),
        ("image_crc", "<u4"),
        ("planes_crc", "<u4"),
        ("pixels_crc", "<u4"),
        ("flags", "<u4"),
    ]
)
IMAGE_FAULT = 1
PLANES_FAULT = 2
RAW_PIXELS = 4
PLAIN_JPEG = 8
"""simplejpeg gave the same pixels as Pillow when the set was packed."""

MAPPED = 4
"""Shards kept mapped: what a process holds of a set does not grow with the set."""


class ShardInfo(NamedTuple):
    """A shard as pack.json lists it: rows first .. first + images - 1."""

    file: str
    first: int
    images: int
    bytes: int
    sha256: str


PLANES_HEAD = struct.Struct("<HI")
"""Distinct numbers n (0: raw numbers follow), runs."""


def encode_planes(planes: NDArray[np.uint16]) -> bytes:
    """One blob for planes [K, H, W], nothing for K = 0.

    Head, n distinct numbers, then deflated: the lengths of runs 1..255 along rows and planes, and for each run the
    index of its number. Planes with more than 256 numbers or hardly any runs are deflated as they are.
    """
    if not len(planes):
        return b""
    flat = planes.reshape(-1)
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([np.zeros(1, starts.dtype), starts])
    lengths = np.diff(starts, append=flat.size)
    numbers = flat[starts]
    # Marking what occurs is faster than sorting it.
    seen = np.zeros(65536, np.bool_)
    seen[numbers] = True
    values = np.flatnonzero(seen).astype("<u2")
    pieces = (lengths + 254) // 255
    runs = int(pieces.sum())
    if len(values) > 256 or runs > flat.size // 3:
        return PLANES_HEAD.pack(0, 0) + zlib.compress(planes.astype("<u2").tobytes(), 6)
    index = np.zeros(65536, np.uint8)
    index[values] = np.arange(len(values))
    counts = np.full(runs, 255, np.uint8)
    counts[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * 255
    body = counts.tobytes() + np.repeat(index[numbers], pieces).tobytes()
    return PLANES_HEAD.pack(len(values), runs) + values.tobytes() + zlib.compress(body, 4)


def _inflate(data: memoryview, size: int) -> bytes:
    stream = zlib.decompressobj()
    out = stream.decompress(data, size + 1)  # one byte more than wanted shows a bomb
    if len(out) != size or not stream.eof:
        raise ValueError("deflated data have another size than expected")
    return out


def decode_planes(blob: memoryview, count: int, size: tuple[int, int]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Planes [count, H, W] and the distinct numbers in them. Raises ValueError, zlib.error."""
    if not count:
        return np.zeros((0, *size), np.uint16), np.zeros(0, np.uint16)
    if len(blob) < PLANES_HEAD.size:
        raise ValueError("cut short")
    total = count * size[0] * size[1]
    distinct, runs = PLANES_HEAD.unpack_from(blob)
    start = PLANES_HEAD.size + 2 * distinct
    if not distinct:
        planes = np.frombuffer(_inflate(blob[start:], 2 * total), "<u2").reshape(count, *size).astype(np.uint16)
        return planes, np.unique(planes)
    if distinct > 256 or runs > total or len(blob) < start:
        raise ValueError("impossible head")
    body = np.frombuffer(_inflate(blob[start:], 2 * runs), np.uint8)
    values = np.frombuffer(blob, "<u2", distinct, PLANES_HEAD.size).astype(np.uint16)
    counts, index = body[:runs], body[runs:]
    if int(counts.sum(dtype=np.int64)) != total or int(index.max(initial=0)) >= distinct:
        raise ValueError("runs do not fill the planes")
    return np.repeat(values[index], counts).reshape(count, *size), values


@dataclass(frozen=True)
class Header:
    """What pack.json says."""

    name: str
    fingerprint: str
    images: int
    shards: tuple[ShardInfo, ...]
    tables: dict[str, str]


def header_digest(raw: dict[str, Any]) -> str:
    """sha256 of a header without its own digest."""
    return hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()


def read_header(root: Root) -> Header:
    """pack.json of a packed set. Raises DataError."""
    try:
        raw: Any = json.loads(root.read(PACK_FILE, 2**28))
        if raw["version"] != VERSION:
            raise DataError(PACK_FILE, None, f"version {raw['version']!r}; this program reads version {VERSION}")
        if raw.pop("digest") != header_digest(raw):
            raise DataError(PACK_FILE, None, "header fails its checksum")
        shards = tuple(
            ShardInfo(str(s["file"]), int(s["first"]), int(s["images"]), int(s["bytes"]), str(s["sha256"]))
            for s in raw["shards"]
        )
        tables = {str(name): str(value) for name, value in raw["tables"].items()}
        header = Header(str(raw["name"]), str(raw["fingerprint"]), int(raw["images"]), shards, tables)
    except InputFault as fault:
        raise DataError(PACK_FILE, None, fault.reason) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(PACK_FILE, None, f"not a pack header ({type(error).__name__}: {error})") from None
    at = 0
    for shard in shards:
        if shard.first != at or shard.images < 1:
            raise DataError(PACK_FILE, None, f"shard {shard.file!r} starts at row {shard.first}; expected {at}")
        at += shard.images
    if at != header.images:
        raise DataError(PACK_FILE, None, f"shards hold {at} images; expected {header.images}")
    return header


class Shard:
    """One mapped shard."""

    def __init__(self, root: Root, info: ShardInfo) -> None:
        self.info = info
        with open_shard(root, info) as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.view = memoryview(self._map)
        size = len(self._map)
        if size != info.bytes:
            raise InputFault(info.file, f"shard of {size:,} bytes; expected {info.bytes:,}")
        offset, count, crc, entry, magic = FOOTER.unpack(self.view[size - FOOTER.size :])
        end = offset + count * ENTRY.itemsize
        if magic != MAGIC or entry != ENTRY.itemsize or count != info.images or end != size - FOOTER.size:
            raise InputFault(info.file, "shard has no valid directory at its end")
        if zlib.crc32(self.view[offset:end]) != crc:
            raise InputFault(info.file, "directory of the shard fails its checksum")
        self.entries = np.frombuffer(self.view, ENTRY, count, offset)
        stops = self.entries["offset"] + self.entries["image"] + self.entries["planes"]
        if count and (int(stops.max()) > offset or int(self.entries["offset"].max()) > offset):
            raise InputFault(info.file, "directory of the shard points outside the shard")

    def part(self, index: int, planes: bool) -> tuple[memoryview, int]:
        """Bytes of the picture or of the planes of a record, checked, and the record's flags. Raises InputFault."""
        offset, image, size, image_crc, planes_crc, _, flags = self.entries[index].item()
        start, stop, crc = (offset + image, offset + image + size, planes_crc)
        if not planes:
            start, stop, crc = offset, offset + image, image_crc
        data = self.view[start:stop]
        if zlib.crc32(data) != crc:
            raise InputFault(self.info.file, f"record {index} of the shard fails its checksum")
        return data, flags


def open_shard(root: Root, info: ShardInfo) -> Any:
    """The shard as an open binary file. Raises InputFault."""
    import os

    file = os.fdopen(root.open(info.file), "rb")
    if os.fstat(file.fileno()).st_size < FOOTER.size + len(MAGIC):
        file.close()
        raise InputFault(info.file, "shard is cut short")
    return file


def _fault(data: memoryview) -> InputFault:
    raw = json.loads(bytes(data))
    return InputFault(str(raw["file"]), str(raw["reason"]))


class PackedDataset(Dataset):
    """A packed set, with the interface of the folder that it was made from."""

    def __init__(self, root: Root, split: str | None = None, limit: int | None = None) -> None:
        self._root = root
        self.header = read_header(root)
        tables = read_tables(root)
        if len(tables.rows) != self.header.images:
            text = f"{len(tables.rows)} rows; the pack holds {self.header.images} images"
            raise DataError("index.csv", None, text)
        super().__init__(root.path, tables, split, limit)
        self._starts = np.array([shard.first for shard in self.header.shards])
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._lock = threading.Lock()
        self._decoder = fast_decoder()
        self._trusted: bool | None = None

    @property
    def fingerprint(self) -> str:
        """That of the set that was packed: the same pixels and labels, so the same identity."""
        return self.header.fingerprint

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """The shards, in the order of the rows of the whole set."""
        return self.header.shards

    def record(self, origin: int) -> tuple[Shard, int]:
        """The shard of a row of the whole set, and the record's place in it. Raises InputFault."""
        number = int(np.searchsorted(self._starts, origin, "right")) - 1
        with self._lock:
            shard = self._open.get(number)
            if shard is None:
                shard = self._open[number] = Shard(self._root, self.header.shards[number])
                if len(self._open) > MAPPED:
                    self._open.popitem(last=False)  # unmapped when the last view of it is gone
            else:
                self._open.move_to_end(number)
        return shard, origin - shard.info.first

    def _part(self, origin: int, planes: bool) -> tuple[memoryview, int]:
        shard, index = self.record(origin)
        return shard.part(index, planes)

    def read_image(self, position: int, size: Size = None) -> NDArray[np.uint8]:
        """See Dataset."""
        return self._image(self.rows[position], self._origins[position], as_size(size))

    def _image(self, row: Row, origin: int, wanted: tuple[int, int] | None) -> NDArray[np.uint8]:
        data, flags = self._part(origin, planes=False)
        if flags & IMAGE_FAULT:
            raise _fault(data)
        if flags & RAW_PIXELS:
            if len(data) != self.image_size[0] * self.image_size[1] * 3:
                raise InputFault(row.image, "pixels have another size than index.csv says")
            rgb = np.frombuffer(data, np.uint8).reshape(*self.image_size, 3)
        elif flags & PLAIN_JPEG and self._may_decode_fast():
            rgb = self._decoder(data)
            if rgb.shape != (*self.image_size, 3):
                raise InputFault(row.image, "picture has another size than index.csv says")
        else:
            try:
                return decode.pixels(bytes(data), self.image_size, wanted)
            except decode.DecodeError as error:
                raise InputFault(row.image, str(error)) from None
        if wanted in (None, self.image_size):
            return rgb
        assert wanted is not None
        return np.asarray(Image.fromarray(rgb).resize((wanted[1], wanted[0]), Image.Resampling.BILINEAR))

    def _may_decode_fast(self) -> bool:
        """Whether the quick JPEG decoder is there and gives Pillow's pixels in this installation (tried once)."""
        if self._decoder is None:
            return False
        if self._trusted is None:
            self._trusted = self._agree()
        return self._trusted

    def _agree(self) -> bool:
        tried = 0
        for origin in range(min(len(self.all_rows), 64)):
            data, flags = self._part(origin, planes=False)
            if flags & PLAIN_JPEG and not flags & IMAGE_FAULT:
                slow = decode.pixels(bytes(data))
                quick = self._decoder(data)
                if slow.shape != quick.shape or not np.array_equal(slow, quick):
                    return False
                tried += 1
                if tried == 4:
                    break
        return True

    def read_labels(self, position: int) -> ImageLabels:
        """See Dataset."""
        return self._labels(self.rows[position], self._origins[position])

    def _labels(self, row: Row, origin: int) -> ImageLabels:
        data, flags = self._part(origin, planes=True)
        if flags & PLANES_FAULT:
            raise _fault(data)
        try:
            planes, values = decode_planes(data, len(row.planes), self.label_size)
        except (ValueError, zlib.error) as error:
            raise InputFault(row.image, f"label planes cannot be unpacked ({error})") from None
        known = self.labels.known[values]
        if not known.all():
            raise InputFault(row.image, f"label {int(values[~known][0])} is not in label.csv")
        return ImageLabels(planes, self._scalars(row))

    def read_file(self, origin: int) -> bytes:
        """Bytes of the picture's file as it was packed. Raises InputFault where only pixels are kept."""
        data, flags = self._part(origin, planes=False)
        if flags & IMAGE_FAULT:
            raise _fault(data)
        if flags & RAW_PIXELS:
            raise InputFault(self.all_rows[origin].image, "packed as pixels; its file is not kept")
        return bytes(data)

    def check_record(self, origin: int) -> tuple[list[InputFault], ImageLabels | None]:
        """Decode everything of a record of the whole set and compare with its checksums."""
        row = self.all_rows[origin]
        faults: list[InputFault] = []
        labels = None
        try:
            rgb = self._image(row, origin, None)
            shard, index = self.record(origin)
            if zlib.crc32(rgb.tobytes()) != int(shard.entries[index]["pixels_crc"]):
                faults.append(InputFault(row.image, "decodes to other pixels than when it was packed"))
        except InputFault as fault:
            faults.append(fault)
        try:
            labels = self._labels(row, origin)
        except InputFault as fault:
            faults.append(fault)
        return faults, None if faults else labels


def fast_decoder() -> Any:
    """simplejpeg's decoder (libjpeg-turbo without detours), or None when it is not installed."""
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None

    def decoded(data: memoryview) -> NDArray[np.uint8]:
        try:
            return decode_jpeg(data, colorspace="RGB")
        except ValueError as error:
            raise InputFault("picture", f"cannot be decoded ({error})") from None

    return decoded
