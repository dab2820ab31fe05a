"""What a run will take, told before its work begins."""

import os
import time
from dataclasses import dataclass

import torch

import broden
from dissect.plan import Part
from dissect.progress import duration, size
from dissect.setting import Setting

_NEIGHBOURS = 9  # nodes that a value above a threshold brings along at most, itself included
_ROW_BYTES, _ROWS_A_UNIT, _ROWS_A_CONCEPT = 128, 20, 200  # of the score table, indexes included


@dataclass(frozen=True)
class Estimate:
    """seconds: decoding and forward passes as fast as for the first batch; everything else is small beside them.
    kept_bytes: files and rows that stay, pages apart. temporary_bytes: what the cache folder may hold at most."""

    seconds: float
    kept_bytes: int
    temporary_bytes: int

    def sentence(self) -> str:
        """One line for people."""
        temporary = (
            f"up to {size(self.temporary_bytes)} more for a while" if self.temporary_bytes else "nothing temporary"
        )
        return f"about {duration(self.seconds)} and the report; disk: {size(self.kept_bytes)} kept, {temporary}"


def estimate(setting: Setting) -> Estimate:
    """Decode and forward the first batch to see how long it takes."""
    parts = [part for parts in setting.plan.passes for part in parts]
    labels, bins = len(setting.primary), setting.plan.bins
    kept = temporary = 0
    for part in parts:
        maps = 4 * setting.method.exemplars * part.height * part.width
        kept += part.units * (8 * labels + maps + 2 * bins)
        rows = part.units * _ROWS_A_UNIT + labels * _ROWS_A_CONCEPT
        kept += _ROW_BYTES * min(rows, part.units * labels)
    for group in setting.plan.passes:
        candidates = sum(_most_candidates(setting, part) for part in group)
        temporary = max(temporary, candidates - setting.plan.candidate_bytes)
    passes = len(setting.plan.passes)
    if passes > 1:
        temporary += sum(8 * part.units * labels for part in parts)
    return Estimate(
        passes * len(setting.batches) * _seconds_of_a_batch(setting),
        kept,
        max(0, min(temporary, setting.resources.disk)),
    )


def _most_candidates(setting: Setting, part: Part) -> int:
    """Bytes of all candidates of a part, if each value above the threshold stands alone."""
    height, width = setting.node_size(part)
    values = part.keep * part.units
    return setting.layout(part).size(values, min(_NEIGHBOURS, height * width) * values)


def _seconds_of_a_batch(setting: Setting) -> float:
    """Decoding is spread over the cores; on a CPU the forward pass wants the same ones."""
    start = time.perf_counter()
    stream = broden.stream(
        setting.data, setting.method.batch_size, batches=[0], size=setting.method.input_size, workers=1
    )
    batch = next(iter(stream))
    decoding = (time.perf_counter() - start) / (os.cpu_count() or 1)
    assert batch.images is not None
    start = time.perf_counter()
    setting.forward(batch.images)
    if setting.forward.device.type == "cuda":
        torch.cuda.synchronize()
        return max(decoding, time.perf_counter() - start)
    return decoding + time.perf_counter() - start
