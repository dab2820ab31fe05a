"""Candidate nodes of maps: those above a bound and their neighbours."""

from collections.abc import Callable

import torch
from torch import Tensor

from dissect import ops
from dissect.chunk import Chunk, Fields, place_type

Call = Callable[[Fields, Tensor], None]

_FEWEST = 1024, 16384  # pairs and nodes of a room
_AMPLE = 8  # a room so many times as large as it need be is given back


class Gatherer:
    """Makes chunks from maps of h x w. They lie in rooms of its own, which grow and shrink to what batches need.

    under_way: how many batches may be gathered at once; a chunk that was gathered is valid until so many more are
    begun, one that was pruned until the next is.
    """

    def __init__(self, height: int, width: int, device: str = "cpu", under_way: int = 1) -> None:
        self.height, self.width, self.device = height, width, device
        self._place = place_type(height * width)
        self._gathered = [self._make(*_FEWEST) for _ in range(under_way)]
        self._turn = 0
        self._pruned = [self._make(*_FEWEST)]

    def gather(self, maps: Tensor, peak: Tensor, bound: Tensor) -> Chunk:
        """maps [B, P, U], peak [B, U], bound [U]."""
        return self.start(maps, peak, bound)()

    def start(self, maps: Tensor, peak: Tensor, bound: Tensor) -> Callable[[], Chunk]:
        """Begin to gather; calling what comes back waits for the chunk. With two under way the host of a GPU can launch
        the next batch before it asks for the sizes of this one."""
        turn, self._turn = self._turn, (self._turn + 1) % len(self._gathered)
        return self._start(
            self._gathered, turn, lambda room, used: ops.gather(maps, self.height, self.width, peak, bound, *room, used)
        )

    def prune(self, chunk: Chunk, bound: Tensor) -> Chunk:
        """The same nodes as if the chunk had been gathered under this higher bound."""
        return self._start(
            self._pruned, 0, lambda room, used: ops.prune(*chunk.fields, self.height, self.width, bound, *room, used)
        )()

    def _make(self, pairs: int, nodes: int) -> Fields:
        def empty(count: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(count, dtype=dtype, device=self.device)

        i32 = torch.int32
        return (
            empty(pairs, i32),
            empty(pairs, i32),
            empty(pairs + 1, i32),
            empty(nodes, self._place),
            empty(nodes, torch.float32),
        )

    def _start(self, rooms: list[Fields], turn: int, call: Call) -> Callable[[], Chunk]:
        used = torch.zeros(2, dtype=torch.int64, device=self.device)
        call(rooms[turn], used)

        def take() -> Chunk:
            room = rooms[turn]
            pairs, nodes = used.tolist()
            if pairs > len(room[0]) or nodes > len(room[4]):
                room = rooms[turn] = self._make(max(pairs, len(room[0])) * 5 // 4, max(nodes, len(room[4])) * 5 // 4)
                call(room, used)
                pairs, nodes = used.tolist()
            if len(room[4]) > _AMPLE * max(
                nodes, _FEWEST[1]
            ):  # the first batches are kept whole: 20 times the later ones
                rooms[turn] = self._make(*(max(2 * n, least) for n, least in zip((pairs, nodes), _FEWEST)))
            unit, image, start, place, value = room
            return Chunk(unit[:pairs], image[:pairs], start[: pairs + 1], place[:nodes], value[:nodes])

        return take
