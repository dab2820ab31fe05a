"""Candidate maps waiting for the final threshold: in memory, then on disk, then dropped to be forwarded again.

Only nodes above the running bound and their neighbours are kept. What is kept where never changes a count: a
dropped batch is forwarded again with the final threshold, which gives the same nodes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dissect.arena import SEGMENT, Arena, Slot
from dissect.chunk import Chunk, Layout
from dissect.gatherer import Gatherer

PRUNE_AT = 64 << 20  # bytes under which it is not worth while
FULL = 7, 8  # the share of its budget beyond which a store that was just pruned moves chunks out


@dataclass(frozen=True)
class _Kept:
    """A chunk in memory."""

    slot: Slot
    pairs: int
    nodes: int


class CandidateStore:
    """Chunks of one layer by batch number, under a memory and a disk budget in bytes.

    A full disk is not an error: what cannot be written is dropped, and `dropped` says so. `folder` is made when
    something is first written.
    """

    def __init__(self, gatherer: Gatherer, layout: Layout, memory: int, disk: int, folder: Path) -> None:
        self.gatherer, self.layout = gatherer, layout
        self.memory_budget, self.disk_budget, self.folder = memory, disk, folder
        self.memory_bytes = self.disk_bytes = 0
        self.peak_disk_bytes = 0
        self.spilled_bytes = 0  # of what left the memory for want of room; the rest of the disk is saved state
        self.disk_full = False
        self._arena = Arena(max(1, min(SEGMENT, memory // 8)), gatherer.device)
        self._memory: dict[int, _Kept] = {}  # in the order of the arena
        self._disk: dict[int, tuple[str, int, int]] = {}  # batch -> file in the folder or any path, offset, length
        self._dropped: set[int] = set()
        self._prune_at = min(memory, PRUNE_AT)
        self._files = 0

    @property
    def dropped(self) -> frozenset[int]:
        """Batches that must be forwarded again."""
        return frozenset(self._dropped)

    def put(self, batch: int, chunk: Chunk, bound: Tensor) -> None:
        """Add a batch, which is copied; bound [U] is the present lower bound of the thresholds, by which older chunks
        may shrink."""
        size = self.layout.size(len(chunk.pair_unit), len(chunk.node_value))
        if self.memory_bytes + size > self._prune_at:
            self.prune(bound)
            wanted = self.memory_bytes + size
            self._prune_at = min(self.memory_budget, max(PRUNE_AT, 2 * wanted))
            if wanted > self.memory_budget * FULL[0] // FULL[1]:
                self._spill(max(0, self.memory_budget // 2 - size))
        self._keep(batch, chunk)
        if self.memory_bytes > self.memory_budget:
            self._spill(0)

    def prune(self, bound: Tensor) -> None:
        """Forget the nodes of chunks in memory that a higher bound no longer needs."""
        for batch, chunk in self._moving():
            self._keep(batch, self.gatherer.prune(chunk, bound))

    def _moving(self) -> Iterator[tuple[int, Chunk]]:
        """Every chunk in memory, to be kept anew before the next is asked for, or not at all."""
        before, self._memory, self.memory_bytes = self._memory, {}, 0
        self._arena.rewind()
        for batch, kept in before.items():
            yield batch, self._chunk(kept)
        self._arena.trim()

    def _keep(self, batch: int, chunk: Chunk) -> None:
        pairs, nodes = len(chunk.pair_unit), len(chunk.node_value)
        size = self.layout.size(pairs, nodes)
        kept = _Kept(self._arena.place(size), pairs, nodes)
        self.layout.pack(chunk, self._arena.view(kept.slot))
        self._memory[batch] = kept
        self.memory_bytes += size

    def _chunk(self, kept: _Kept) -> Chunk:
        return self.layout.unpack(self._arena.view(kept.slot), kept.pairs, kept.nodes)

    def _spill(self, target: int) -> None:
        """Move the oldest chunks out of memory until `target` bytes are left there."""
        left, leaving = self.memory_bytes, []
        for batch in sorted(self._memory):
            if left <= target:
                break
            left -= self.layout.size(self._memory[batch].pairs, self._memory[batch].nodes)
            leaving.append(batch)
        self.persist(leaving)
        gone = set(leaving)
        self.spilled_bytes += sum(self._disk[batch][2] for batch in gone & self._disk.keys())
        self._dropped |= gone - self._disk.keys()
        for batch, chunk in self._moving():
            if batch not in gone:
                self._keep(batch, chunk.clone())  # it may come to lie over itself

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
                    pieces = self._framed(self._memory[batch])
                    length = sum(map(len, pieces))
                    if self.disk_bytes + offset + length > self.disk_budget:
                        self.disk_full = True
                        break
                    file.writelines(pieces)
                    written[batch] = (name, offset, length)
                    offset += length
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
            return self._chunk(self._memory[batch])
        if batch in self._disk:
            name, offset, length = self._disk[batch]
            stored = torch.empty(length, dtype=torch.uint8)
            try:
                with open(self.folder / name, "rb", buffering=0) as file:
                    file.seek(offset)
                    return Layout.unframed(stored[: file.readinto(stored.numpy().data)], self.gatherer.device)
            except OSError:
                return None
        return None

    def _framed(self, kept: _Kept) -> tuple[bytes, memoryview, bytes]:
        return self.layout.framed(self._arena.view(kept.slot), kept.pairs, kept.nodes)

    def take(self, batch: int, bound: Tensor) -> bytes | None:
        """What `get` gives, under a higher bound, as the bytes of a file; it is then no longer held in memory."""
        found = self.get(batch)
        if found is None:
            return None
        chunk = self.gatherer.prune(found, bound)
        pairs, nodes = len(chunk.pair_unit), len(chunk.node_value)
        data = torch.zeros(self.layout.size(pairs, nodes), dtype=torch.uint8, device=self.gatherer.device)
        self.layout.pack(chunk, data)
        self.release(batch)
        return b"".join(self.layout.framed(data, pairs, nodes))

    def adopt(self, batch: int, path: Path, offset: int, length: int) -> None:
        """A chunk that lies in a file of somebody else's, which is neither counted nor written nor removed here."""
        self._disk[batch] = (str(path.absolute()), offset, length)

    def drop_others(self, batches: Iterable[int]) -> None:
        """Every batch that is not held must be forwarded again."""
        self._dropped = set(batches) - self._memory.keys() - self._disk.keys()

    def release(self, batch: int) -> None:
        """Forget a chunk that has been counted."""
        kept = self._memory.pop(batch, None)
        if kept is not None:
            self.memory_bytes -= self.layout.size(kept.pairs, kept.nodes)
            self._arena.free(kept.slot)

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
