"""What all passes of a run share: data and the loop that reads them, network, plan, and what was set aside."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

import broden
from dissect import conventions
from dissect.chunk import Layout
from dissect.errors import DissectError
from dissect.forward import Forward
from dissect.heap import Heap
from dissect.labels import LabelCache
from dissect.method import Method, Resources
from dissect.plan import Part, Plan
from dissect.results import Timings

Item = TypeVar("Item")


@dataclass
class Setting:
    """`valid` [N]: images that count so far; `faults` by position: why the others do not. `given` {layer: [U]}:
    thresholds that are used instead of being found."""

    data: broden.Dataset
    method: Method
    resources: Resources
    forward: Forward
    plan: Plan
    announce: Callable[[str], None]
    given: Mapping[str, Tensor]
    cache: LabelCache
    heap: Heap
    faults: dict[int, broden.Fault] = field(default_factory=dict)
    timings: Timings = field(default_factory=Timings)
    forwarded_again: int = 0
    disk_bytes: int = 0
    spilled_bytes: int = 0

    def __post_init__(self) -> None:
        self.convention = conventions.get(self.method.convention)
        self.primary = torch.from_numpy(np.array(self.data.labels.primary, np.int16))
        self.valid = np.ones(len(self.data), bool)
        self.valid[list(self.faults)] = False

    @property
    def batches(self) -> range:
        """Numbers of all batches of the grid."""
        return range(-(-len(self.data) // self.method.batch_size))

    def node_size(self, part: Part) -> tuple[int, int]:
        """Nodes of a map, with the ring that a convention may put around it."""
        return self.convention.nodes((part.height, part.width))

    def layout(self, part: Part) -> Layout:
        """How candidates of a part lie in bytes."""
        height, width = self.node_size(part)
        return Layout.of(part.units, self.method.batch_size, height * width)

    def span(self, batch: int) -> range:
        """Positions of a batch."""
        size = self.method.batch_size
        return range(batch * size, min(len(self.data), (batch + 1) * size))

    def valid_in(self, batch: int) -> Tensor:
        """Which images of a batch count: bool [B]."""
        span = self.span(batch)
        return torch.from_numpy(self.valid[span.start : span.stop])

    def measured(self, batches: Sequence[int]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Batches with their maps, for the first time: labels are read too, and what is broken is set aside."""
        for batch in self.waiting(self._stream(batches, images=True, labels=True)):
            self._note_faults(batch)
            assert batch.labels is not None
            for i, labels in enumerate(batch.labels):
                if labels is not None and self.valid[batch.first + i]:
                    self.cache.put(batch.first + i, labels)
            yield batch.first // self.method.batch_size, self._maps(batch)

    def measured_again(self, batches: Sequence[int]) -> Iterator[dict[str, Tensor]]:
        """Maps of the given batches: the original batches once more, so the original bits."""
        for batch in self.waiting(self._stream(batches, images=True, labels=False)):
            self.forwarded_again += len(batch.valid)
            yield self._maps(batch)

    def labelled(self) -> Iterator[tuple[int, list["broden.ImageLabels | None"]]]:
        """Labels of every batch in order, from the cache or decoded again; None for excluded images."""
        missing = [b for b in self.batches if any(self.valid[p] and self.cache.get(p) is None for p in self.span(b))]
        decoded = self._stream(missing, images=False, labels=True)
        absent = set(missing)
        for batch in self.batches:
            span = self.span(batch)
            if batch not in absent:
                yield batch, [self.cache.get(p) if self.valid[p] else None for p in span]
                continue
            fresh = next(decoded)
            for fault in fresh.faults:
                if self.valid[fault.position]:
                    raise DissectError(f"{fault.file} could be read before and cannot be read now: {fault.reason}")
            assert fresh.labels is not None
            yield batch, [labels if self.valid[p] else None for p, labels in zip(span, fresh.labels)]

    def _maps(self, batch: broden.Batch) -> dict[str, Tensor]:
        assert batch.images is not None, "the stream was asked for images"
        batch.images[~self.valid[batch.first : batch.first + len(batch.images)]] = 0
        with self.timings.phase("forward_s"):
            return self.forward(batch.images)

    def _stream(self, batches: Sequence[int], images: bool, labels: bool) -> Iterator[broden.Batch]:
        return iter(
            broden.stream(
                self.data, self.method.batch_size, batches=batches, images=images, labels=labels,
                size=self.method.input_size, workers=self.resources.workers,
            )
        )  # fmt: skip

    def waiting(self, items: Iterator[Item]) -> Iterator[Item]:
        """The same items; the time that the loop waits for them counts as decoding."""
        while True:
            with self.timings.phase("decode_s"):
                item = next(items, None)
            if item is None:
                return
            yield item

    def _note_faults(self, batch: broden.Batch) -> None:
        for fault in batch.faults:
            self.set_aside(fault)

    def set_aside(self, fault: broden.Fault) -> None:
        """Leave an image out; the first reason stands."""
        self.faults.setdefault(fault.position, fault)
        self.valid[fault.position] = False
