"""Streams: the grid, order, faults in place, equal results whatever the threads do."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import broden

from . import makers


@pytest.fixture
def data(tmp_path: Path) -> broden.Dataset:
    return broden.open(makers.small(tmp_path / "set"))


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 6, 50])
def test_batches_equal_random_access(data: broden.Dataset, batch_size: int, workers: int) -> None:
    seen = 0
    for batch in broden.stream(data, batch_size, workers=workers):
        assert batch.first == seen
        assert batch.first % batch_size == 0
        assert batch.valid.all()
        assert not batch.faults
        assert batch.images is not None
        assert batch.labels is not None
        for slot, labels in enumerate(batch.labels):
            assert (batch.images[slot] == data.read_image(seen)).all()
            assert labels is not None
            assert (labels.planes == data.read_labels(seen).planes).all()
            seen += 1
    assert seen == len(data)


def test_chosen_batches_in_the_order_asked_for(data: broden.Dataset) -> None:
    firsts = [(batch.first, len(batch)) for batch in broden.stream(data, 4, batches=[1, 0])]
    assert firsts == [(4, len(data) - 4 if len(data) < 8 else 4), (0, 4)]
    assert list(broden.stream(data, 2, batches=[])) == []
    for number in (-1, -(-len(data) // 2)):
        with pytest.raises(ValueError, match=f"batch {number} is off the grid"):
            broden.stream(data, 2, batches=[number])
    with pytest.raises(ValueError, match="batch_size"):
        broden.stream(data, 0)


def test_parts_and_size(data: broden.Dataset) -> None:
    batch = next(broden.stream(data, 4, labels=False, size=(5, 9)))
    assert batch.labels is None
    assert batch.images is not None
    assert batch.images.shape == (4, 5, 9, 3)
    assert (batch.images[2] == data.read_image(2, (5, 9))).all()
    batch = next(broden.stream(data, 4, images=False))
    assert batch.images is None
    assert batch.labels is not None
    assert len(batch.labels) == 4


def test_a_fault_keeps_its_slot_and_is_reported_once(data: broden.Dataset) -> None:
    (data.root / "images/s/i3.jpg").write_bytes(b"no picture")
    (data.root / "images/s/i4_object.png").unlink()
    for batch_size in (1, 4, 6):
        batches = list(broden.stream(data, batch_size))
        faults = [fault for batch in batches for fault in batch.faults]
        assert [(f.position, f.file) for f in faults] == [(3, "s/i3.jpg"), (4, "s/i4_object.png")]
        valid = np.concatenate([batch.valid for batch in batches])
        assert valid.tolist() == [True, True, True, False, False, True]
        images = np.concatenate([batch.images for batch in batches])
        assert not images[3:5].any()
        assert (images[5] == data.read_image(5)).all()
        labels = [item for batch in batches for item in batch.labels or ()]
        assert labels[3] is None
        assert labels[4] is None
        assert labels[5] is not None
    # what was not asked for cannot be at fault
    assert [f.position for b in broden.stream(data, 6, labels=False) for f in b.faults] == [3]
    assert [f.position for b in broden.stream(data, 6, images=False) for f in b.faults] == [4]


def test_leaving_early_stops_the_threads(data: broden.Dataset) -> None:
    before = threading.active_count()
    batches = broden.stream(data, 1)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
