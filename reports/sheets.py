"""Sheets of thumbnails as JPEG files, none of which encodes a picture that another has encoded before.

A baseline JPEG may restart its entropy coding every so many blocks (ITU-T T.81, B.2.4.4): what lies between two restart
markers stands for itself. So each thumbnail is encoded once, with a restart after every row of blocks, and a sheet is a
frame header with its own size around those pieces, in the order in which its rows of blocks cross the thumbnails.
"""

import io
import re
import struct
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from PIL import Image

from . import images
from .pages import ImageSource

BLOCK = 16  # pixels a side of what is coded together: colours have half the resolution
KEPT_BYTES = 256 << 20  # encoded thumbnails kept in memory
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")  # inside coded data every other 0xff is followed by 0
_MARKERS = [bytes((0xFF, 0xD0 + k)) for k in range(8)]

Pieces = tuple[bytes, ...]
"""One thumbnail: its rows of blocks, coded."""


class Crops:
    """Encoded thumbnails of one size by image position."""

    def __init__(self, source: ImageSource, px: int, quality: int) -> None:
        """Raises ValueError for a size that is not a multiple of BLOCK."""
        if px % BLOCK:
            raise ValueError(f"thumbnails are coded in blocks of {BLOCK} pixels; {px} is no multiple of it")
        self.px = px
        self._source, self._quality = source, quality
        self._kept: OrderedDict[int, Pieces | None] = OrderedDict()
        self._bytes = 0
        self._head, self.absent = self._coded(images.missing(px))
        self.blank = self._coded(np.full((px, px, 3), 225, np.uint8))[1]

    def find(self, position: int) -> Pieces | None:
        """The thumbnail of an image; None where the image is missing."""
        if position in self._kept:
            self._kept.move_to_end(position)
            return self._kept[position]
        thumb = self._source.thumb(position, self.px)
        found = None if thumb is None else self._coded(thumb)[1]
        self._kept[position] = found
        self._bytes += _size(found)
        while self._bytes > KEPT_BYTES:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return found

    def sheet(self, rows: Sequence[Sequence[Pieces]]) -> bytes:
        """A JPEG file of thumbnails side by side, equally many in each row."""
        frame = self._head.index(b"\xff\xc0")
        size = struct.pack(">HH", len(rows) * self.px, len(rows[0]) * self.px)
        pieces = [piece for row in rows for line in zip(*row) for piece in line]
        coded = [part for k, piece in enumerate(pieces) for part in (piece, _MARKERS[k % 8])]
        return b"".join((self._head[: frame + 5], size, self._head[frame + 9 :], *coded[:-1], b"\xff\xd9"))

    def _coded(self, thumb: np.ndarray) -> tuple[bytes, Pieces]:
        """Everything before the coded data, which is alike for all, and the coded rows of blocks."""
        out = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(thumb)).save(
            out, "JPEG", quality=self._quality, subsampling="4:2:0", restart_marker_rows=1
        )
        file = out.getvalue()
        scan = file.index(b"\xff\xda")
        start = scan + 2 + int.from_bytes(file[scan + 2 : scan + 4], "big")
        return file[:start], tuple(_RESTART.split(file[start:-2]))


def _size(pieces: Pieces | None) -> int:
    return 100 + sum(map(len, pieces or ()))
