"""Room for byte strings one behind another, in few large pieces.

Thousands of small tensors that come and shrink leave holes that the allocator keeps: what lay in 230 MB held 590.
"""

import mmap
from dataclasses import dataclass

import torch
from torch import Tensor

SEGMENT = 64 << 20
_ALIGNED = 8


@dataclass(frozen=True)
class Slot:
    """Bytes first..last of a segment."""

    segment: int
    first: int
    last: int


class Arena:
    """Segments that are filled from the first on. Pages that nothing was written to take no memory on a CPU."""

    def __init__(self, segment: int = SEGMENT, device: str = "cpu") -> None:
        self._size, self._device = segment, device
        self._segments: list[Tensor | None] = []
        self._slots: list[int] = []  # in use, by segment
        self._at, self._end = 0, 0

    @property
    def nbytes(self) -> int:
        """Size of all segments."""
        return sum(len(segment) for segment in self._segments if segment is not None)

    def place(self, size: int) -> Slot:
        """Room for so many bytes behind what was placed last."""
        while self._at < len(self._segments) and not self._fits(size):
            self._at, self._end = self._at + 1, 0
        if self._at == len(self._segments):
            self._segments.append(self._segment(max(size, self._size)))
            self._slots.append(0)
        slot = Slot(self._at, self._end, self._end + size)
        self._end = -(-slot.last // _ALIGNED) * _ALIGNED
        self._slots[self._at] += 1
        return slot

    def view(self, slot: Slot) -> Tensor:
        """The bytes [size] uint8 of a slot."""
        segment = self._segments[slot.segment]
        assert segment is not None, "a slot lives no longer than its segment"
        return segment[slot.first : slot.last]

    def free(self, slot: Slot) -> None:
        """A segment is given back with the last of its slots, once others are being filled."""
        self._slots[slot.segment] -= 1
        if not self._slots[slot.segment]:
            self._segments[slot.segment] = None

    def rewind(self) -> None:
        """Begin at the first segment again, over what lies there. Who moves slots in the order in which they were
        placed, each at most as long as it was, never writes over one that is still to be moved."""
        self._at = self._end = 0
        self._slots = [0] * len(self._segments)

    def trim(self) -> None:
        """Give back the segments behind what was placed last."""
        while self._slots and not self._slots[-1]:
            del self._segments[-1], self._slots[-1]

    def _segment(self, size: int) -> Tensor:
        """A piece that goes back to the system when it is forgotten; the allocator would keep some of the smaller."""
        if self._device != "cpu" or not size:
            return torch.empty(size, dtype=torch.uint8, device=self._device)
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return torch.frombuffer(pages, dtype=torch.uint8)

    def _fits(self, size: int) -> bool:
        segment = self._segments[self._at]
        return segment is not None and self._end + size <= len(segment)
