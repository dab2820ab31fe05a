"""Where candidates wait: as bytes and back, moved over one another, out to disk; always the nodes of the last bound."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dissect import ops
from dissect.arena import Arena
from dissect.candidates import CandidateStore
from dissect.chunk import Chunk, Layout
from dissect.gatherer import Gatherer


def maps(images: int, side: int, units: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(images, side * side, units, generator=torch.Generator().manual_seed(seed))


def gathered(values: torch.Tensor, side: int, bound: torch.Tensor) -> Chunk:
    return Gatherer(side, side).gather(values, values.amax(1), bound)


def same(left: Chunk, right: Chunk) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.fields, right.fields))


SIZES = [(3, 2, 5, 1), (300, 9, 7, 1), (4, 300, 3, 1), (2, 3, 17, 2), (70_000, 1, 1, 1), (2, 1, 257, 4)]


@pytest.mark.parametrize(("units", "images", "side", "width"), SIZES)
@pytest.mark.parametrize("level", [-9.0, 1.0, 9.0])
def test_a_chunk_comes_back_from_its_bytes(units: int, images: int, side: int, width: int, level: float) -> None:
    layout = Layout.of(units, images, side * side)
    assert layout.place == width
    chunk = gathered(maps(images, side, units), side, torch.full((units,), level))
    counts = len(chunk.pair_unit), len(chunk.node_value)
    data = torch.zeros(layout.size(*counts), dtype=torch.uint8)
    layout.pack(chunk, data)
    assert same(layout.unpack(data, *counts), chunk)
    again = Layout.unframed(torch.frombuffer(bytearray().join(layout.framed(data, *counts)), dtype=torch.uint8))
    assert again is not None
    assert same(again, chunk)


def test_damaged_bytes_are_no_chunk() -> None:
    layout = Layout.of(4, 2, 9)
    chunk = gathered(maps(2, 3, 4), 3, torch.zeros(4))
    counts = len(chunk.pair_unit), len(chunk.node_value)
    data = torch.zeros(layout.size(*counts), dtype=torch.uint8)
    layout.pack(chunk, data)
    stored = torch.frombuffer(bytearray().join(layout.framed(data, *counts)), dtype=torch.uint8)
    assert Layout.unframed(stored) is not None
    for at in range(0, len(stored), 7):
        assert Layout.unframed(stored[:at]) is None
        other = stored.clone()
        other[at] ^= 1
        assert Layout.unframed(other) is None


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), max_size=40))
@settings(max_examples=200, deadline=None)
def test_what_is_moved_in_order_never_lies_over_what_is_not(sizes: list[tuple[int, int]]) -> None:
    """Strings of bytes that shrink, some longer than a segment: after each move all others still read as they did."""
    arena = Arena(64)
    slots = [arena.place(max(pair)) for pair in sizes]
    for number, slot in enumerate(slots):
        arena.view(slot).fill_(number)
    arena.rewind()
    moved = []
    for number, (slot, pair) in enumerate(zip(slots, sizes)):
        assert arena.view(slot).eq(number).all()
        target = arena.place(min(pair))
        arena.view(target).fill_(number)
        moved.append(target)
    before = arena.nbytes
    arena.trim()
    assert arena.nbytes <= before
    for number, slot in enumerate(moved):
        assert arena.view(slot).eq(number).all()


def test_segments_are_given_back() -> None:
    arena = Arena(100)
    slots = [arena.place(60) for _ in range(3)]
    assert arena.nbytes == 300
    arena.free(slots[0])
    arena.free(slots[1])
    assert arena.nbytes == 100
    arena.rewind()
    arena.trim()
    assert arena.nbytes == 0


@pytest.mark.parametrize("disk", [0, 1 << 30])
@pytest.mark.parametrize("budget", [1 << 30, 20_000, 0])
def test_a_store_keeps_its_bounds_and_the_nodes_of_the_last_one(tmp_path: Path, budget: int, disk: int) -> None:
    """Forty batches under a bound that rises: what is held equals what the last bound alone would keep."""
    side, units, images = 7, 6, 5
    layout = Layout.of(units, images, side * side)
    store = CandidateStore(Gatherer(side, side), layout, budget, disk, tmp_path / "store")
    batches = {n: maps(images, side, units, seed=n) for n in range(40)}
    largest = 0
    for n, values in batches.items():
        bound = torch.full((units,), n / 20)
        chunk = gathered(values, side, bound)
        largest = max(largest, layout.size(len(chunk.pair_unit), len(chunk.node_value)))
        store.put(n, chunk, bound)
        assert store.memory_bytes <= budget + largest
        assert store.disk_bytes <= disk
    last = torch.full((units,), 2.0)
    assert set(store.batches()) | store.dropped == set(batches)
    assert (len(store.dropped) > 0) == (budget < 1 << 30 and disk == 0)
    assert (store.disk_bytes > 0) == (budget < 1 << 30 and disk > 0)
    store.prune(last)
    for n in store.batches():
        kept = store.get(n)
        assert kept is not None
        assert same(store.gatherer.prune(kept, last), gathered(batches[n], side, last)), n
        store.release(n)
    assert store.memory_bytes == 0


def test_pruning_does_not_touch_what_is_being_gathered() -> None:
    """On a GPU a batch is under way while older ones are pruned, one after another."""
    side, units = 5, 8
    gatherer, low, high = Gatherer(side, side, under_way=2), torch.zeros(8), torch.full((8,), 1.0)
    first, second = maps(3, side, units, seed=1), maps(3, side, units, seed=2)
    one = gatherer.start(first, first.amax(1), low)
    two = gatherer.start(second, second.amax(1), low)
    kept = one().clone()
    for _ in range(3):
        assert same(gatherer.prune(kept, high), gathered(first, side, high))
    assert same(two(), gathered(second, side, low))


def test_rooms_are_as_large_as_batches_need_them() -> None:
    """Grown for one that is kept whole, given back for later ones; what was handed out stays as it was."""
    side, units = 20, 400
    gatherer, low, high = Gatherer(side, side), torch.full((units,), -9.0), torch.full((units,), 3.5)
    values = maps(2, side, units)
    whole = gatherer.gather(values, values.amax(1), low)
    few = gatherer.prune(whole, high)
    assert 0 < 8 * len(few.node_value) < len(whole.node_value)
    assert same(few, gathered(values, side, high))
    sparse = gatherer.gather(values, values.amax(1), high)
    room = sparse.node_value.untyped_storage().nbytes()
    assert room >= whole.node_value.nbytes
    again = gatherer.gather(values, values.amax(1), high)
    assert same(sparse, again)
    assert again.node_value.untyped_storage().nbytes() < room // 8
    assert same(gatherer.gather(values, values.amax(1), low), gathered(values, side, low))


def test_the_kernels_refuse_places_that_are_too_narrow() -> None:
    if ops.backend()["cpu"] != "compiled":
        pytest.skip("argument checks belong to the compiled kernels")
    values, i32 = maps(1, 17, 1), torch.int32
    room = (torch.empty(9, dtype=i32), torch.empty(9, dtype=i32), torch.empty(10, dtype=i32))
    with pytest.raises(RuntimeError, match="must be int16 or int32 for maps of more than 256 places, here 289"):
        ops.gather(
            values, 17, 17, values.amax(1), torch.zeros(1), *room, torch.empty(400, dtype=torch.uint8),
            torch.empty(400), torch.zeros(2, dtype=torch.int64),
        )  # fmt: skip
