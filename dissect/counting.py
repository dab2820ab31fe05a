"""The counting pass: thresholds are read out, and labels meet candidates. No forward pass, except for what was
dropped."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from dissect import thresholds
from dissect.ahead import ahead
from dissect.exemplars import ExemplarMaps, Exemplars
from dissect.histogram import Histogram
from dissect.labels import LabelPacker, LabelTotals
from dissect.null import NullSample
from dissect.overlap import OverlapCounts
from dissect.progress import Progress
from dissect.results import LayerResult
from dissect.scan import BLOCKS
from dissect.setting import Setting
from dissect.statistics.null import Null
from dissect.thresholds import Thresholds
from dissect.work import Work


def read_thresholds(setting: Setting, item: Work) -> Thresholds:
    """The thresholds of one part: read out of its tails, or as they were given."""
    n = int(setting.valid.sum()) * item.part.places
    if item.given is not None:
        return thresholds.given(item.given.cpu(), setting.convention, setting.method.quantile, n)
    return thresholds.select(item.levels, setting.convention, setting.method.quantile, n)


def count(setting: Setting, work: list[Work]) -> tuple[list[LayerResult], LabelTotals]:
    """Count every candidate of measured work against the labels; tails and candidates are used up."""
    found = [read_thresholds(setting, item) for item in work]
    convention, device, data = setting.convention, setting.resources.device, setting.data
    packer = LabelPacker(setting.primary.numpy(), data.label_size, convention.unite, BLOCKS)
    primary = setting.primary.to(device)
    levels = [at.threshold.to(device) for at in found]
    counts, maps, axes = [], [], []
    for item, at in zip(work, found):
        item.levels.drop_tail()
        counts.append(OverlapCounts(item.part.units, len(primary), len(data.categories), setting.plan.blocks, device))
        maps.append(ExemplarMaps(item.scan, at.threshold, setting.node_size(item.part), setting.method.batch_size))
        rows, columns = convention.axes((item.part.height, item.part.width), data.label_size)
        axes.append((rows.to(device), columns.to(device)))
    sample = NullSample(setting, work, axes, levels) if setting.method.null else None
    dropped = set().union(*(item.store.dropped for item in work))
    again = setting.measured_again(sorted(dropped))
    progress = Progress("count", len(data))
    packing = ((batch, labels, packer.pack(labels, batch % BLOCKS)) for batch, labels in setting.labelled())
    for batch, labels, pack in setting.waiting(ahead(packing)):
        packed = pack.to(device)
        fresh = next(again) if batch in dropped else {}
        with setting.timings.phase("overlap_s"):
            chunks = [
                item.candidates(batch, fresh, setting.valid_in(batch), level) for item, level in zip(work, levels)
            ]
            for i, (item, chunk) in enumerate(zip(work, chunks)):
                counts[i].update(
                    chunk, packed, setting.node_size(item.part), axes[i], levels[i], primary, convention.area, batch
                )
                maps[i].update(batch, chunk)
                item.store.release(batch)
        if sample is not None:
            sample.add(batch, chunks, labels)
        progress.advance(len(labels))
        setting.heap.trim()
    progress.close()
    packer.totals.clear(0)
    ring = 1 if convention.pads else 0
    nulls: Sequence[Null | None] = [None] * len(work)
    if sample is not None:
        with setting.timings.phase("null_s"):
            nulls = sample.draw(setting.method.null, setting.method.null_shifts)
    results = [
        _finish(setting, item, at, kept, collected.result(ring), null)
        for item, at, kept, collected, null in zip(work, found, counts, maps, nulls)
    ]
    return results, packer.totals


def _finish(
    setting: Setting, item: Work, at: Thresholds, counts: OverlapCounts, exemplars: Exemplars, null: Null | None
) -> LayerResult:
    scan, part = item.scan, item.part
    nonfinite = scan.nonfinite.cpu()
    counts.clear((nonfinite > 0).to(counts.mask.device))
    moments = scan.moments.cpu().numpy()
    total = np.zeros(moments.shape[1:])
    for block in moments:
        total += block
    values = int(setting.valid.sum()) * part.height * part.width
    finite = np.maximum(values - nonfinite.numpy(), 1)
    mean = total[:, 0] / finite
    spread = np.sqrt(np.maximum(total[:, 1] / finite - mean * mean, 0))
    blocks = counts.blocks if counts.blocks > 1 else 0
    intersection = (
        counts.intersection.sum(0) if blocks else counts.intersection[0]
    )  # no second copy of the largest array
    intersection[:, 0] = 0
    return LayerResult(
        part.layer, (part.height, part.width), at.n, at.k, at.threshold.numpy(), scan.low.cpu().numpy(),
        scan.high.cpu().numpy(), mean, spread, nonfinite.numpy(),
        intersection.cpu().numpy(), counts.area.sum(0).cpu().numpy(), counts.mask.cpu().numpy(), exemplars,
        _by_block(counts.intersection, blocks), _by_block(counts.area, blocks),
        Histogram.from_table(scan.histogram.cpu().numpy()) if len(scan.histogram) else None, null,
        item.peaks.value.cpu().numpy(),
    )  # fmt: skip


def _by_block(counts: Tensor, blocks: int) -> np.ndarray:
    """Counts [B, ...] by block, [0, ...] where there are none: not a view, which would keep the whole in memory."""
    return counts.cpu().numpy() if blocks else np.empty((0, *counts.shape[1:]), np.int64)
