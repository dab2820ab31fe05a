"""Sparse maps of one batch, as tensors for the kernels and as bytes for keeping."""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dissect import ops
from dissect.reference import UNSIGNED, packed_spans

Fields = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""pair_unit, pair_image, pair_start, node_place, node_value: what gather and prune write, see Chunk."""

_HEADER, _CHECK = struct.Struct("<6q"), struct.Struct("<I")  # pairs, nodes, widths; CRC-32 of that and all else
_NUMPY = {1: np.uint8, 2: np.uint16}
_NODES = 5  # a value above a threshold brings about four neighbours with it; measured: 4.6 to 5.7 nodes


@dataclass(frozen=True)
class Chunk:
    """pair_unit, pair_image [pairs] int32, pair_start [pairs + 1] int32, node_place [nodes] uint8, int16 (read as
    unsigned) or int32, node_value [nodes] float32."""

    pair_unit: Tensor
    pair_image: Tensor
    pair_start: Tensor
    node_place: Tensor
    node_value: Tensor

    @property
    def fields(self) -> Fields:
        return self.pair_unit, self.pair_image, self.pair_start, self.node_place, self.node_value

    def clone(self) -> "Chunk":
        return Chunk(*(tensor.clone() for tensor in self.fields))


@dataclass(frozen=True)
class Layout:
    """How chunks lie in bytes: as few for each pair and node as the sizes at hand allow. Widths in bytes of a unit, of
    an image of the batch, of the number of nodes of a pair, and of a place."""

    unit: int
    image: int
    count: int
    place: int

    @classmethod
    def of(cls, units: int, images: int, places: int) -> "Layout":
        """For maps of so many units, images in a batch, and places."""
        return cls(_width(units - 1), _width(images - 1), _width(places), _width(places - 1))

    def expected(self, values: int, places: int) -> int:
        """About how many bytes it takes to keep so many values above a threshold, for maps of so many places."""
        nodes = min(_NODES, places)
        pair = self.unit + self.image + self.count
        return values * (nodes * (4 + self.place) + (pair if places == 1 else pair // 2))

    def size(self, pairs: int, nodes: int) -> int:
        """Bytes of a chunk."""
        return self._spans(pairs, nodes)[-1].stop

    def pack(self, chunk: Chunk, out: Tensor) -> None:
        """Write a chunk into out [size] uint8."""
        ops.pack(*chunk.fields, self.unit, self.image, self.count, out)

    def unpack(self, data: Tensor, pairs: int, nodes: int) -> Chunk:
        """The chunk of `pack`; its nodes are views of data [size] uint8."""
        room = torch.empty(3 * pairs + 1, dtype=torch.int32, device=data.device)
        unit, image, start = room.split((pairs, pairs, pairs + 1))
        ops.unpack(data, nodes, *self.widths, unit, image, start)
        value, *_, place = self._spans(pairs, nodes)
        return Chunk(unit, image, start, data[place].view(UNSIGNED[self.place]), data[value].view(torch.float32))

    def framed(self, data: Tensor, pairs: int, nodes: int) -> tuple[bytes, memoryview, bytes]:
        """A packed chunk for a file, in three pieces: header, the bytes as they are, CRC-32."""
        header = _HEADER.pack(pairs, nodes, *self.widths)
        body = data.cpu().numpy().data
        return header, body, _CHECK.pack(zlib.crc32(body, zlib.crc32(header)))

    @staticmethod
    def unframed(stored: Tensor, device: str = "cpu") -> Chunk | None:
        """The chunk of `framed`, its pieces together as stored [n] uint8; None where they are damaged. On a CPU its
        nodes are views."""
        if len(stored) < _HEADER.size + _CHECK.size:
            return None
        read = stored.numpy().data
        if _CHECK.pack(zlib.crc32(read[: -_CHECK.size])) != read[-_CHECK.size :].tobytes():
            return None
        pairs, nodes, *widths = _HEADER.unpack_from(read)
        return Layout(*widths).unpack(stored[_HEADER.size : -_CHECK.size].to(device), pairs, nodes)

    @property
    def widths(self) -> tuple[int, int, int, int]:
        return self.unit, self.image, self.count, self.place

    def _spans(self, pairs: int, nodes: int) -> list[slice]:
        return packed_spans(pairs, nodes, self.widths)


def place_type(places: int) -> torch.dtype:
    """Of node_place, for maps of so many places."""
    return UNSIGNED[_width(places - 1)]


def unsigned(values: np.ndarray) -> np.ndarray:
    """Whole numbers as the kernels read them."""
    return values.view(_NUMPY[values.itemsize]) if values.itemsize in _NUMPY else values


def _width(largest: int) -> int:
    """Bytes of an unsigned number."""
    return 1 if largest < 256 else 2 if largest < 65536 else 4
