"""Inputs for the kernels, made from a seed: shapes with zero, one, odd and prime sizes and hostile values."""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dissect import ops, upsample

SHAPES = [  # images, height, width, units
    (0, 3, 3, 5),
    (1, 1, 1, 1),
    (3, 1, 1, 17),
    (2, 7, 7, 64),
    (4, 7, 5, 65),
    (3, 13, 13, 31),
    (1, 1, 9, 3),
    (2, 9, 1, 2),
    (5, 2, 3, 129),
    (2, 16, 11, 1),
    (1, 17, 16, 3),
]
LABEL_SIZES = [(1, 1), (7, 7), (12, 10), (29, 31), (5, 3)]
LABELS, CATEGORIES = 11, 4


def maps(shape: tuple[int, int, int, int], seed: int, kind: str = "normal") -> Tensor:
    """[B, P, U] float32; `kind` picks the values: normal, relu (many ties at 0), coarse (many ties) or odd."""
    images, height, width, units = shape
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(images, height * width, units, generator=generator)
    if kind == "relu":
        values = values.sub(1).clamp_(min=0)
    elif kind == "coarse":
        values = values.mul(2).round() / 2
    elif kind == "odd" and values.numel():
        where = torch.rand(values.shape, generator=generator)
        values[where < 0.02] = math.nan
        values[(where >= 0.02) & (where < 0.03)] = math.inf
        values[(where >= 0.03) & (where < 0.04)] = -math.inf
        values[(where >= 0.04) & (where < 0.06)] = -0.0
        values[(where >= 0.06) & (where < 0.08)] = 1e-42
        values[(where >= 0.08) & (where < 0.09)] = 3.4e38
    return values


@dataclass
class ScanState:
    """Everything that `ops.scan` updates for `units` units."""

    units: int
    keep: int
    capacity: int
    slots: int = 3
    bins: int = 2048
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        u, e = self.units, self.slots
        self.tensors = {
            "tail": torch.zeros(u, self.capacity),
            "fill": torch.zeros(u, dtype=torch.int64),
            "bound": torch.full((u,), -math.inf),
            "low": torch.full((u,), math.inf),
            "high": torch.full((u,), -math.inf),
            "nonfinite": torch.zeros(u, dtype=torch.int64),
            "moments": torch.zeros(u, 2, dtype=torch.float64),
            "histogram": torch.zeros(self.bins, u, dtype=torch.int32),
            "top_value": torch.zeros(u, e),
            "top_image": torch.full((u, e), -1, dtype=torch.int64),
            "top_place": torch.zeros(u, e, dtype=torch.int64),
        }

    def scan(self, function, values: Tensor, valid: Tensor, first: int) -> Tensor:  # type: ignore[no-untyped-def]
        peak = torch.empty(values.shape[0], self.units)
        function(values, valid, first, self.keep, *self.tensors.values(), peak)
        return peak

    def largest(self, u: int) -> list[float]:
        """The `keep` largest values seen by unit u, descending."""
        fill = int(self.tensors["fill"][u])
        return self.tensors["tail"][u, :fill].sort(descending=True).values[: self.keep].tolist()


@dataclass(frozen=True)
class Chunk:
    """Outputs of gather or prune, cut to what is used."""

    tensors: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

    @classmethod
    def gather(  # type: ignore[no-untyped-def]
        cls,
        function,
        values: Tensor,
        size: tuple[int, int],
        peak: Tensor,
        bound: Tensor,
        place: torch.dtype = torch.int16,
    ) -> "Chunk":
        outputs, used = cls.room(values.shape[0] * values.shape[2], values.numel(), place)
        function(values, *size, peak, bound, *outputs, used)
        return cls.cut(outputs, used)

    def prune(self, function, size: tuple[int, int], bound: Tensor) -> "Chunk":  # type: ignore[no-untyped-def]
        outputs, used = self.room(len(self.tensors[0]), len(self.tensors[4]), self.tensors[3].dtype)
        function(*self.tensors, *size, bound, *outputs, used)
        return self.cut(outputs, used)

    @staticmethod
    def room(pairs: int, nodes: int, place: torch.dtype = torch.int16) -> tuple[tuple[Tensor, ...], Tensor]:
        i32 = torch.int32
        outputs = (
            torch.zeros(pairs, dtype=i32),
            torch.zeros(pairs, dtype=i32),
            torch.zeros(pairs + 1, dtype=i32),
            torch.zeros(nodes, dtype=place),
            torch.zeros(nodes),
        )
        return outputs, torch.zeros(2, dtype=torch.int64)

    @classmethod
    def cut(cls, outputs: tuple[Tensor, ...], used: Tensor) -> "Chunk":
        pairs, nodes = used.tolist()
        unit, image, start, place, value = outputs
        return cls((unit[:pairs], image[:pairs], start[: pairs + 1], place[:nodes], value[:nodes]))


@dataclass(frozen=True)
class LabelCase:
    planes: Tensor
    plane_start: Tensor
    scalars: Tensor
    scalar_start: Tensor
    held: Tensor
    primary: Tensor

    @classmethod
    def make(cls, images: int, size: tuple[int, int], seed: int) -> "LabelCase":
        generator = torch.Generator().manual_seed(seed)
        plane_count = torch.randint(0, 4, (images,), generator=generator)
        scalar_count = torch.randint(0, 3, (images,), generator=generator)
        planes = torch.randint(0, LABELS, (int(plane_count.sum()), *size), generator=generator).to(torch.int16)
        return cls(
            planes,
            torch.cat([torch.zeros(1), plane_count.cumsum(0)]).to(torch.int32),
            torch.randint(0, LABELS, (int(scalar_count.sum()),), generator=generator).to(torch.int32),
            torch.cat([torch.zeros(1), scalar_count.cumsum(0)]).to(torch.int32),
            torch.randint(0, 2**CATEGORIES, (images,), generator=generator),
            torch.tensor([-1] + [n % CATEGORIES for n in range(1, LABELS)], dtype=torch.int16),
        )

    def fields(self) -> tuple[Tensor, ...]:
        return (self.planes, self.plane_start, self.scalars, self.scalar_start, self.held, self.primary)

    def on(self, device: str) -> "LabelCase":
        return replace(self, **{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


def tables(map_size: tuple[int, int], label_size: tuple[int, int]) -> tuple[Tensor, ...]:
    rows, columns = (upsample.half_pixel(s, t) for s, t in zip(map_size, label_size))
    return rows.node, rows.t, columns.node, columns.t


def overlap(  # type: ignore[no-untyped-def]
    function,
    chunk: Chunk,
    map_size: tuple[int, int],
    axis: tuple[Tensor, ...],
    threshold: Tensor,
    labels: LabelCase,
    rule: int,
) -> tuple[Tensor, Tensor, Tensor]:
    units = len(threshold)
    device = threshold.device
    totals = (
        torch.zeros(units, LABELS, dtype=torch.int64, device=device),
        torch.zeros(units, CATEGORIES, dtype=torch.int64, device=device),
        torch.zeros(units, dtype=torch.int64, device=device),
    )
    function(*chunk.tensors, *map_size, *axis, threshold, *labels.fields(), rule, *totals)
    return totals


__all__ = [
    "CATEGORIES",
    "LABELS",
    "LABEL_SIZES",
    "SHAPES",
    "Chunk",
    "LabelCase",
    "ScanState",
    "maps",
    "ops",
    "overlap",
    "tables",
]
