"""How the cost grows: with images, units, concepts and map size."""

import argparse
import tempfile
from pathlib import Path
from statistics import median

import torch
from torch import nn

import broden
from dissect import pipeline
from tests.bench import table
from tests.bench.table import Table

MEAN = STD = (0.5, 0.5, 0.5)


class Units(nn.Module):
    """`units` fixed random filters over pictures pooled to `side` x `side`: a layer of any size that costs little."""

    def __init__(self, units: int, side: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.layer = nn.Conv2d(3, units, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.pool(x))


def run(data: Path, options: argparse.Namespace) -> Table:
    """Microseconds an image, of thresholds and overlap alone; each row changes one thing."""
    rows = Table(
        "Scaling of thresholds and overlap",
        {
            "what": ("what", str),
            "images": ("images", table.whole),
            "units": ("units", table.whole),
            "side": ("map side", table.whole),
            "concepts": ("concepts", table.whole),
            "threshold_us": ("thresholds, us an image", lambda value: f"{value:,.0f}"),
            "overlap_us": ("overlap, us an image", lambda value: f"{value:,.0f}"),
        },
    )
    with tempfile.TemporaryDirectory() as folder:
        few = broden.synth(Path(folder) / "few", images=1000, concepts=60, size=64)
        many = broden.synth(Path(folder) / "many", images=1000, concepts=1197, size=64)
        for _ in range(5):  # interleaved, so that the machine's mood is the same on both sides
            _add(rows, "concepts", few, 512, 7)
            _add(rows, "concepts", many, 512, 7)
        for images in (250, 500, 1000):
            _add(rows, "images", many, 512, 7, images)
        for units in (64, 512, 2048, 16384):
            _add(rows, "units", many, units, 7, 500)
        for side in (1, 7, 14, 28, 56, 112):
            _add(rows, "map side", many, 64, side, 500)
    pairs = [row for row in rows.rows if row["what"] == "concepts"]
    fewer, more = sorted({row["concepts"] for row in pairs})  # that many of them occur in these images
    cost = {c: median(r["threshold_us"] + r["overlap_us"] for r in pairs if r["concepts"] == c) for c in (fewer, more)}
    print(f"\n{more:,} concepts cost {cost[more] / cost[fewer]:.2f} of what {fewer} cost (median of five, interleaved)")
    return rows


def _add(rows: Table, what: str, data: broden.Dataset, units: int, side: int, images: int | None = None) -> None:
    data = broden.open(data.root, limit=images)
    torch.manual_seed(0)
    method = pipeline.Method(("layer",), mean=MEAN, std=STD)
    with tempfile.TemporaryDirectory() as folder:
        result = pipeline.dissect(Units(units, side), data, method, pipeline.Resources(Path(folder) / "work"), own=True)
    rows.add(
        what=what,
        images=len(data),
        units=units,
        side=side,
        concepts=len(data.labels.present()),
        threshold_us=1e6 * result.timings.threshold_s / len(data),
        overlap_us=1e6 * result.timings.overlap_s / len(data),
    )
