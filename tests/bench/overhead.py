"""The loop of a dissection against the leanest loop that decodes and forwards the same; start-up apart."""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

import broden
from dissect import models, pipeline
from dissect.forward import Forward, default_batch_size
from tests.bench import table
from tests.bench.table import Table
from tests.bench.whole import CASES

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def run(data: Path, options: argparse.Namespace) -> Table:
    """Both sides decode pictures and label planes with the same threads and stop at the layer, channels-last."""
    rows = Table(
        "Loop of a dissection against a lean loop (channels-last, truncated, same decoding)",
        {
            "model": ("network", str),
            "images": ("images", table.whole),
            "lean_s": ("lean loop", table.seconds),
            "dissect_s": ("dissect", table.seconds),
            "overhead": ("overhead", table.share),
        },
    )
    source = broden.open(data, limit=options.limit or None)
    for name in options.model:
        layers, _ = CASES[name]
        model = models.load(name, keep=layers)
        batch = default_batch_size(source.image_size, "cpu")
        method = pipeline.Method(tuple(layers), batch_size=batch)
        lean, ours = [], []
        for _ in range(options.repeats):
            lean.append(_lean(model.module, layers, source, batch))
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                pipeline.dissect(model.module, source, method, pipeline.Resources(Path(folder) / "work"), own=True)
                ours.append(time.perf_counter() - start)
        rows.add(
            model=name,
            images=len(source),
            lean_s=median(lean),
            dissect_s=median(ours),
            overhead=median(o / p - 1 for o, p in zip(ours, lean)),
        )
    return rows


def _lean(module: torch.nn.Module, layers: list[str], data: broden.Dataset, batch_size: int) -> float:
    """Seconds of a loop in plain torch, with nothing that it could leave out: whole rows are normalised in place."""
    width = data.image_size[1]
    mean, std = (torch.tensor(v).repeat(width) * 255 for v in (MEAN, STD))
    with Forward(module, layers, MEAN, STD) as forward:
        forward.shapes(data.image_size)
        start = time.perf_counter()
        for batch in broden.stream(data, batch_size):
            assert batch.images is not None
            rows = torch.from_numpy(batch.images).view(-1, 3 * width).float().sub_(mean).div_(std)
            forward.taps.forward(rows.view(batch.images.shape).permute(0, 3, 1, 2))
        return time.perf_counter() - start
