"""Candidate maps waiting for the final threshold: in memory, then on disk, then dropped to be forwarded again.

Only nodes above the running bound and their neighbours are kept. What is kept where never changes a count: a
dropped batch is forwarded again with the final threshold, which gives the same nodes.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dissect import ops

Room = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # output of gather and prune, see Chunk
_HEADER = struct.Struct("<qqq")  # pairs, nodes, bytes of one place


@dataclass(frozen=True)
class Chunk:
    """Sparse maps of one batch: pair_unit, pair_image [pairs] int32, pair_start [pairs + 1] int32,
    node_place [nodes] int16 (unsigned) or int32, node_value [nodes] float32."""

    pair_unit: Tensor
    pair_image: Tensor
    pair_start: Tensor
    node_place: Tensor
    node_value: Tensor

    @property
    def fields(self) -> Room:
        return self.pair_unit, self.pair_image, self.pair_start, self.node_place, self.node_value

    @property
    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.fields)

    def to_bytes(self) -> bytes:
        """Header, arrays, CRC-32."""
        header = _HEADER.pack(len(self.pair_unit), len(self.node_value), self.node_place.element_size())
        body = header + b"".join(tensor.cpu().numpy().tobytes() for tensor in self.fields)
        return body + struct.pack("<I", zlib.crc32(body))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Chunk | None":
        """None where the bytes are damaged."""
        if len(data) < _HEADER.size + 4 or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
            return None
        pairs, nodes, width = _HEADER.unpack_from(data)
        arrays, offset = [], _HEADER.size
        for dtype, count in (
            (np.int32, pairs), (np.int32, pairs), (np.int32, pairs + 1), (np.int16 if width == 2 else np.int32, nodes),
            (np.float32, nodes),
        ):  # fmt: skip
            arrays.append(torch.from_numpy(np.frombuffer(data, dtype, count, offset).copy()))
            offset += count * np.dtype(dtype).itemsize
        return cls(*arrays)


class Gatherer:
    """Makes chunks from maps of h x w; its two output rooms are used in turn and grow to what a batch needs."""

    def __init__(self, height: int, width: int, device: str = "cpu") -> None:
        self.height, self.width, self.device = height, width, device
        self._wide = height * width > 65536
        self._rooms = [self._make(1024, 16384), self._make(1024, 16384)]
        self._next = 0

    def _make(self, pairs: int, nodes: int) -> Room:
        def empty(count: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(count, dtype=dtype, device=self.device)

        i32 = torch.int32
        place = i32 if self._wide else torch.int16
        return (
            empty(pairs, i32),
            empty(pairs, i32),
            empty(pairs + 1, i32),
            empty(nodes, place),
            empty(nodes, torch.float32),
        )

    def gather(self, maps: Tensor, peak: Tensor, bound: Tensor) -> Chunk:
        """maps [B, P, U], peak [B, U], bound [U]."""
        return self.start(maps, peak, bound)()

    def start(self, maps: Tensor, peak: Tensor, bound: Tensor) -> Callable[[], Chunk]:
        """Begin to gather; calling what comes back waits for the chunk. At most two may be under way: on a GPU the host
        can thus launch the next batch before it asks for the sizes of this one."""
        return self._start(lambda room, used: ops.gather(maps, self.height, self.width, peak, bound, *room, used))

    def prune(self, chunk: Chunk, bound: Tensor) -> Chunk:
        """The same nodes as if the chunk had been gathered under this higher bound."""
        return self._start(lambda room, used: ops.prune(*chunk.fields, self.height, self.width, bound, *room, used))()

    def _start(self, call: Callable[[Room, Tensor], None]) -> Callable[[], Chunk]:
        used = torch.zeros(2, dtype=torch.int64, device=self.device)
        turn = self._next
        self._next = 1 - turn
        call(self._rooms[turn], used)
        return lambda: self._take(turn, call, used)

    def _take(self, turn: int, call: Callable[[Room, Tensor], None], used: Tensor) -> Chunk:
        pairs, nodes = used.tolist()
        room = self._rooms[turn]
        if pairs > len(room[0]) or nodes > len(room[4]):
            room = self._rooms[turn] = self._make(max(pairs, len(room[0])) * 5 // 4, max(nodes, len(room[4])) * 5 // 4)
            call(room, used)
            pairs, nodes = used.tolist()
        unit, image, start, place, value = room
        return Chunk(
            unit[:pairs].clone(),
            image[:pairs].clone(),
            start[: pairs + 1].clone(),
            place[:nodes].clone(),
            value[:nodes].clone(),
        )


class CandidateStore:
    """Chunks of one layer by batch number, under a memory and a disk budget in bytes.

    A full disk is not an error: what cannot be written is dropped, and `dropped` says so. `folder` is made when
    something is first written.
    """

    def __init__(self, gatherer: Gatherer, memory: int, disk: int, folder: Path) -> None:
        self.gatherer = gatherer
        self.memory_budget, self.disk_budget, self.folder = memory, disk, folder
        self.memory_bytes = self.disk_bytes = 0
        self.peak_disk_bytes = 0
        self.disk_full = False
        self._memory: dict[int, Chunk] = {}
        self._disk: dict[int, tuple[str, int, int]] = {}  # batch -> file in the folder or any path, offset, length
        self._dropped: set[int] = set()
        self._prune_at = min(memory, 64 << 20)
        self._files = 0

    @property
    def dropped(self) -> frozenset[int]:
        """Batches that must be forwarded again."""
        return frozenset(self._dropped)

    def put(self, batch: int, chunk: Chunk, bound: Tensor) -> None:
        """Add a batch; bound [U] is the present lower bound of the thresholds, by which older chunks may shrink."""
        self._memory[batch] = chunk
        self.memory_bytes += chunk.nbytes
        if self.memory_bytes > self._prune_at:
            self.prune(bound)
            self._prune_at = min(self.memory_budget, max(64 << 20, 2 * self.memory_bytes))
            if self.memory_bytes > self.memory_budget * 3 // 4:
                self._spill(self.memory_budget // 2)

    def prune(self, bound: Tensor) -> None:
        """Forget the nodes of chunks in memory that a higher bound no longer needs."""
        for batch, chunk in self._memory.items():
            self._memory[batch] = self.gatherer.prune(chunk, bound)
        self.memory_bytes = sum(chunk.nbytes for chunk in self._memory.values())

    def _spill(self, target: int) -> None:
        """Move the oldest chunks out of memory until `target` bytes are left there."""
        oldest = sorted(self._memory)
        count, left = 0, self.memory_bytes
        while left > target and count < len(oldest):
            left -= self._memory[oldest[count]].nbytes
            count += 1
        leaving = oldest[:count]
        self.persist(leaving)
        for batch in leaving:
            self.memory_bytes -= self._memory.pop(batch).nbytes
            if batch not in self._disk:
                self._dropped.add(batch)

    def persist(self, batches: list[int] | None = None) -> None:
        """Write chunks that are only in memory into one new file (all of them by default). What does not fit into the
        disk budget or on the disk stays unwritten."""
        wanted = sorted(self._memory) if batches is None else batches
        todo = [batch for batch in wanted if batch not in self._disk]
        if not todo or self.disk_full:
            return
        name = f"{self._files:06d}.chunks"
        offset, written = 0, {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / name, "wb") as file:
                for batch in todo:
                    data = self._memory[batch].to_bytes()
                    if self.disk_bytes + offset + len(data) > self.disk_budget:
                        self.disk_full = True
                        break
                    file.write(data)
                    written[batch] = (name, offset, len(data))
                    offset += len(data)
                file.flush()
        except OSError:
            self.disk_full = True
            (self.folder / name).unlink(missing_ok=True)
            return
        self._files += 1
        self._disk |= written
        self.disk_bytes += offset
        self.peak_disk_bytes = max(self.peak_disk_bytes, self.disk_bytes)

    def get(self, batch: int) -> Chunk | None:
        """The chunk of a batch, or None where it must be forwarded again: it was dropped, or its file is damaged."""
        if batch in self._memory:
            return self._memory[batch]
        if batch in self._disk:
            name, offset, length = self._disk[batch]
            try:
                with open(self.folder / name, "rb") as file:
                    file.seek(offset)
                    return Chunk.from_bytes(file.read(length))
            except OSError:
                return None
        return None

    def adopt(self, batch: int, path: Path, offset: int, length: int) -> None:
        """A chunk that lies in a file of somebody else's, which is neither counted nor written nor removed here."""
        self._disk[batch] = (str(path.absolute()), offset, length)

    def drop_others(self, batches: Iterable[int]) -> None:
        """Every batch that is not held must be forwarded again."""
        self._dropped = set(batches) - self._memory.keys() - self._disk.keys()

    def release(self, batch: int) -> None:
        """Forget a chunk that has been counted."""
        chunk = self._memory.pop(batch, None)
        if chunk is not None:
            self.memory_bytes -= chunk.nbytes

    def batches(self) -> Iterator[int]:
        """Batches that are held, ascending."""
        yield from sorted(self._memory.keys() | self._disk.keys())

    def index(self) -> dict[str, object]:
        """What is on disk, for a checkpoint; call `persist` first. Batches not listed will be forwarded again."""
        return {
            "files": self._files,
            "bytes": self.disk_bytes,
            "entries": {str(b): list(e) for b, e in self._disk.items()},
        }

    def restore(self, index: dict[str, Any], batches: Iterable[int]) -> None:
        """Go on from a checkpoint that covered the given batches."""
        self._files, self.disk_bytes = index["files"], index["bytes"]
        self.peak_disk_bytes = self.disk_bytes
        self._disk = {int(b): (str(e[0]), int(e[1]), int(e[2])) for b, e in index["entries"].items()}
        self._dropped = set(batches) - set(self._disk)
