"""Batches in order, decoded ahead by threads, with bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from broden.dataset import Dataset, Size, as_size
from broden.errors import InputFault
from broden.schema import Batch, Fault, ImageLabels

AHEAD_BYTES = 512 * 2**20
"""Batches waiting to be taken hold at most about this much, and at most four batches beyond the one in use."""


class _Slots:
    """The arrays of one batch while its images are being decoded."""

    def __init__(self, data: Dataset, span: range, images: bool, labels: bool, size: tuple[int, int]) -> None:
        self._data = data
        self.first = span.start
        self._size = size
        self._labels_wanted = labels
        count = len(span)
        self._images = np.zeros((count, *size, 3), np.uint8) if images else None
        self._labels: list[ImageLabels | None] = [None] * count
        self._faults: list[Fault | None] = [None] * count

    def read(self, slot: int) -> None:
        """Decode one image and its planes into the slot; a fault leaves zeros and None."""
        position = self.first + slot
        try:
            labels = self._data.read_labels(position) if self._labels_wanted else None
            if self._images is not None:
                self._images[slot] = self._data.read_image(position, self._size)
            self._labels[slot] = labels
        except InputFault as fault:
            self._faults[slot] = Fault(position, fault.file, fault.reason)

    def batch(self) -> Batch:
        """The finished batch."""
        valid = np.array([fault is None for fault in self._faults], np.bool_)
        faults = tuple(fault for fault in self._faults if fault is not None)
        return Batch(self.first, self._images, self._labels if self._labels_wanted else None, valid, faults)


def default_workers() -> int:
    """Threads that decode: one for each core this process may use, at most 16."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return min(16, cores)


def stream(
    data: Dataset,
    batch_size: int,
    batches: Sequence[int] | None = None,
    images: bool = True,
    labels: bool = True,
    size: Size = None,
    workers: int | None = None,
) -> Iterator[Batch]:
    """All batches of the data set in order, or the given ones in the given order.

    Batches form the grid of `batch_size` from position 0: batch b holds the positions from b * batch_size on, and
    the last one may be short. `size` squashes pictures, bilinear. `workers` threads decode ahead (default: one a
    core); what they do never changes the result. An image with a broken file (among those asked for) leaves zeros in
    its slot, is not `valid`, and is reported once in `faults`. Raises ValueError for batches off the grid.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    count = -(-len(data) // batch_size)
    chosen = range(count) if batches is None else batches
    off = next((number for number in chosen if not 0 <= number < count), None)
    if off is not None:
        raise ValueError(f"batch {off} is off the grid: expected 0 to {count - 1}")
    shape = as_size(size) or data.image_size
    return _batches(data, batch_size, chosen, workers or default_workers(), images=images, labels=labels, shape=shape)


def _batches(
    data: Dataset,
    batch_size: int,
    numbers: Sequence[int],
    workers: int,
    *,
    images: bool,
    labels: bool,
    shape: tuple[int, int],
) -> Iterator[Batch]:
    one = batch_size * (shape[0] * shape[1] * 3 * images + data.label_size[0] * data.label_size[1] * 8 * labels)
    # Threads need at least one image each in hand, or small batches would leave them idle.
    wanted = max(4, -(-2 * workers // batch_size))
    ahead = max(1, min(wanted, AHEAD_BYTES // max(one, 1)))
    following = iter(numbers)
    waiting: deque[tuple[_Slots, list[Future[None]]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="broden")
    try:
        while True:
            while len(waiting) < ahead:
                number = next(following, None)
                if number is None:
                    break
                span = range(number * batch_size, min((number + 1) * batch_size, len(data)))
                slots = _Slots(data, span, images, labels, shape)
                waiting.append((slots, [pool.submit(slots.read, slot) for slot in range(len(span))]))
            if not waiting:
                return
            slots, jobs = waiting.popleft()
            for job in jobs:
                job.result()
            yield slots.batch()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
