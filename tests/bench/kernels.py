"""Each kernel against the slow reference and against the dense formulation, on maps like those of real layers."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dissect import reference, upsample
from dissect.candidates import Chunk, Gatherer
from dissect.labels import LabelBatch
from dissect.overlap import OverlapCounts
from dissect.scan import LayerScan
from tests.bench import table
from tests.bench.table import Table

SHAPES = {"7 x 7 x 1,280": (7, 1280), "13 x 13 x 512": (13, 512), "56 x 56 x 64": (56, 64)}
IMAGES, SIDE, LABELS, KEPT = 8, 112, 1198, 0.005


def run(data: Path, options: argparse.Namespace) -> Table:
    """Milliseconds for a batch of 8 images; thresholds stand at the top 0.5 %."""
    rows = Table(
        "Kernels, one batch of 8 images",
        {
            "kernel": ("kernel", str),
            "shape": ("maps", str),
            "compiled_s": ("compiled", table.milliseconds),
            "reference": ("reference takes", table.times),
            "dense": ("dense torch takes", lambda value: table.times(value) if value else "-"),
        },
    )
    for shape, (side, units) in SHAPES.items():
        maps = (torch.randn(IMAGES, side * side, units, generator=torch.Generator().manual_seed(1)) - 1).clamp_(min=0)
        threshold = maps.flatten(0, 1).quantile(1 - KEPT, dim=0) if maps.numel() < 16e6 else maps.amax((0, 1)) * 0.7
        for kernel, case in (
            ("scan", _scan(maps)),
            ("gather", _gather(maps, side, threshold)),
            ("overlap", _overlap(maps, side, threshold)),
        ):
            best = _best(case.compiled)
            rows.add(
                kernel=kernel,
                shape=shape,
                compiled_s=best,
                reference=_once(case.slow) * case.factor / best,
                dense=_best(case.dense, 2) / best if case.dense else None,
            )
    return rows


def _best(call: Callable[[], object], repeats: int = 20) -> float:
    call()
    return min(_once(call) for _ in range(repeats))


def _once(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Case:
    """slow: the reference on one part in `factor` of the work; dense: whole-array torch."""

    compiled: Callable[[], object]
    slow: Callable[[], object]
    factor: float
    dense: Callable[[], object] | None


def _scan(maps: Tensor) -> Case:
    keep = max(2, int(KEPT * maps.shape[0] * maps.shape[1] * 40))
    valid = torch.ones(len(maps), dtype=torch.bool)
    scan = LayerScan(maps.shape[2], keep, 10, 1, maps.shape[1], 2048)
    for _ in range(40):
        scan.update(maps, valid, 0, 0)
    peak = torch.empty(len(maps), maps.shape[2])
    few = maps[:1].contiguous()

    def slow() -> None:
        reference.scan(
            few, valid[:1], 0, keep, scan.tail.clone(), scan.fill.clone(), scan.bound, scan.low, scan.high,
            scan.nonfinite, scan.moments[0], scan.histogram, scan.top_value, scan.top_image, scan.top_place, peak[:1],
        )  # fmt: skip

    def dense() -> None:
        """The same statistics, one torch call each."""
        flat = maps.flatten(0, 1)
        flat.topk(int(KEPT * len(flat)) + 1, 0)
        flat.double().sum(0), flat.double().square().sum(0), maps.amax(1), flat.amin(0)

    return Case(lambda: scan.update(maps, valid, 0, 0), slow, len(maps), dense)


def _gather(maps: Tensor, side: int, threshold: Tensor) -> Case:
    peak = maps.amax(1)
    gatherer = Gatherer(side, side)
    room = gatherer._make(maps.shape[0] * maps.shape[2], maps.numel())
    used = torch.zeros(2, dtype=torch.int64)
    return Case(
        lambda: gatherer.gather(maps, peak, threshold),
        lambda: reference.gather(maps, side, side, peak, threshold, *room, used),
        1,
        None,
    )


def _overlap(maps: Tensor, side: int, threshold: Tensor) -> Case:
    generator = np.random.default_rng(1)
    coarse = generator.integers(1, LABELS, (IMAGES * 2, SIDE // 16, SIDE // 16))
    planes = torch.from_numpy(np.kron(coarse, np.ones((1, 16, 16), np.int64)).astype(np.uint16).view(np.int16))
    starts = torch.arange(0, 2 * IMAGES + 1, 2, dtype=torch.int32)
    nothing = torch.zeros(IMAGES + 1, dtype=torch.int32)
    labels = LabelBatch(
        planes, starts, torch.zeros(0, dtype=torch.int32), nothing, torch.full((IMAGES,), 63, dtype=torch.int64)
    )
    chunk = Gatherer(side, side).gather(maps, maps.amax(1), threshold)
    axis = upsample.half_pixel(side, SIDE)
    counts = OverlapCounts(maps.shape[2], LABELS, 6)
    primary = torch.zeros(LABELS, dtype=torch.int16)
    pairs = int((chunk.pair_unit < 8).sum())
    few = Chunk(
        chunk.pair_unit[:pairs], chunk.pair_image[:pairs], chunk.pair_start[: pairs + 1],
        chunk.node_place[: int(chunk.pair_start[pairs])], chunk.node_value[: int(chunk.pair_start[pairs])],
    )  # fmt: skip
    tables = (axis.node, axis.t, axis.node, axis.t)

    def slow() -> None:
        reference.overlap(
            *few.fields, side, side, *tables, threshold, planes, starts, labels.scalars, nothing, labels.held, primary,
            0, counts.intersection[0], counts.area[0], counts.mask,
        )  # fmt: skip

    def dense() -> None:
        """Upsample every map, threshold, and multiply masks by one-hot labels."""
        whole = maps.permute(0, 2, 1).unflatten(2, (side, side))
        for i in range(IMAGES):
            masks = F.interpolate(whole[i : i + 1], (SIDE, SIDE), mode="bilinear")[0] > threshold[:, None, None]
            hot = F.one_hot(planes[2 * i : 2 * i + 2].long().flatten(1), LABELS).sum(0).float()
            masks.flatten(1).float() @ hot

    return Case(
        lambda: counts.update(chunk, labels, (side, side), (axis, axis), threshold, primary, 0),
        slow,
        len(chunk.pair_unit) / pairs,
        dense,
    )
