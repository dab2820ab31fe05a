"""Pictures of a run's images: from the concept data, where it is at hand."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import broden
from dissect.errors import SpecError
from dissect.store import RunRecord

CACHE_BYTES = 512 << 20  # decoded thumbnails kept in memory


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


def open_data(record: RunRecord, data: Path | str | broden.Dataset | None) -> tuple[broden.Dataset | None, str]:
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
