"""Tar shards in the WebDataset manner: files of one sample share a name up to the first dot and stand together.

Members are read in place; nothing is extracted, linked or unpickled. Taken are NAME.jpg (jpeg, png, webp) for the
picture, NAME.<category>.png for a mask, NAME.json for {"scene": "street"} whole-image labels, NAME.cls or NAME.txt
for a whole-image label of the category `cls`. Anything else is refused.
"""

from __future__ import annotations

import json
import os
import tarfile
from typing import Any

from broden import decode
from broden.errors import DataError, InputFault
from broden.paths import fault_in
from broden.sources.base import FolderSource, Layer, Names, Sample, numbered, option

PICTURES = ("jpg", "jpeg", "png", "webp")
MAX_MEMBER = 2**28


class TarSource(FolderSource):
    """Options: name, path, `shards` (files; default every .tar in the folder), `labels` (category to number to name,
    or the names of the JSON file that holds it, default labels.json), `cls` (category of .cls and .txt, default scene).
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(option(options, "name", str), option(options, "path", str))
        self._class = option(options, "cls", str, "scene")
        file = option(options, "labels", str, "labels.json")
        self._names: dict[str, dict[int, Names]] = {}
        if self.root.exists(file):
            try:
                for category, table in json.loads(self.root.read(file)).items():
                    names: dict[int, str | Names] = {int(n): str(text) for n, text in table.items()}
                    self._names[category] = numbered(names, (0, 255))
            except (ValueError, AttributeError, TypeError, RecursionError) as error:
                raise DataError(self.where(file), None, f"expected names by category and number ({error})") from None
        shards = option(options, "shards", list, self.files("", (".tar",)))
        self._samples: dict[str, dict[str, tuple[str, int, int]]] = {}
        for shard in shards:
            self._list(shard)
        self._keys = sorted(key for key, parts in self._samples.items() if _picture(parts) is not None)
        alone = sorted(set(self._samples) - set(self._keys))
        if alone:
            raise DataError(self.where(shards[0]), None, f"sample {alone[0]!r} has no picture")

    def _list(self, shard: str) -> None:
        try:
            handle = os.fdopen(self.root.open(shard), "rb")
        except InputFault as fault:
            raise DataError(self.where(shard), None, fault.reason) from None
        with handle:
            try:
                with tarfile.open(fileobj=handle, mode="r:") as tar:
                    for member in tar:
                        if member.isdir():
                            continue
                        self._add(shard, member)
            except (tarfile.TarError, ValueError, EOFError) as error:
                if isinstance(error, DataError):
                    raise
                raise DataError(self.where(shard), None, f"not a whole tar file ({error})") from None

    def _add(self, shard: str, member: tarfile.TarInfo) -> None:
        if not member.isreg():
            raise DataError(self.where(shard), None, f"member {member.name[:80]!r} is not a plain file")
        reason = fault_in(member.name.removeprefix("./"))
        if reason is not None:
            raise DataError(self.where(shard), None, reason)
        folder, _, leaf = member.name.removeprefix("./").rpartition("/")
        base, _, suffix = leaf.partition(".")
        suffix = suffix.lower()
        category = suffix.removesuffix(".png")
        if suffix not in (*PICTURES, "json", "cls", "txt") and category not in self._names:
            text = f"member {member.name[:80]!r}: .{suffix} is no picture, mask of a named category, json, cls or txt"
            raise DataError(self.where(shard), None, text)
        key = f"{folder}/{base}" if folder else base
        parts = self._samples.setdefault(key, {})
        if suffix in parts:
            raise DataError(self.where(shard), None, f"member {member.name[:80]!r} stands there twice")
        parts[suffix] = (shard, member.offset_data, member.size)

    def _bytes(self, key: str, suffix: str) -> bytes:
        shard, offset, size = self._samples[key][suffix]
        if size > MAX_MEMBER:
            raise InputFault(f"{key}.{suffix}", f"{size:,} bytes; at most {MAX_MEMBER:,} are read")
        handle = self.root.open(shard)
        try:
            data = os.pread(handle, size, offset)
        finally:
            os.close(handle)
        if len(data) != size:
            raise InputFault(f"{key}.{suffix}", "tar file is cut short")
        return data

    def __len__(self) -> int:
        return len(self._keys)

    def image_name(self, index: int) -> str:
        """See Source."""
        return self._keys[index]

    def read(self, index: int) -> Sample:
        """See Source."""
        key = self._keys[index]
        parts = self._samples[key]
        picture = _picture(parts)
        assert picture is not None
        name = f"{key}.{picture}"
        try:
            data = self._bytes(key, picture)
            sample = Sample(decode.pixels(data), data)
            for suffix in sorted(parts):
                category = suffix.removesuffix(".png")
                name = f"{key}.{suffix}"
                if category != suffix:
                    mask = decode.mask(self._bytes(key, suffix))
                    if mask.ndim != 2:
                        raise InputFault(name, "mask is in colours; expected one value a pixel")
                    sample.layers.append(Layer(category, mask, self._names[category], name))
                elif suffix in ("cls", "txt"):
                    label = self._bytes(key, suffix).decode("utf-8").strip()
                    sample.scalars.append((self._class, (label,)))
                elif suffix == "json":
                    for kind, label in json.loads(self._bytes(key, suffix)).items():
                        sample.scalars.append((str(kind), (str(label),)))
        except (ValueError, AttributeError, RecursionError) as error:
            raise InputFault(name, str(error)) from None
        return sample


def _picture(parts: dict[str, Any]) -> str | None:
    return next((suffix for suffix in PICTURES if suffix in parts), None)
