"""Memory and disk of whole dissections, each in a process of its own, against the budget that they were given."""

import argparse
import multiprocessing
import re
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

import broden
from dissect import pipeline
from tests.bench import table
from tests.bench.scaling import MEAN, STD, Units
from tests.bench.table import Table

# units, side of the maps, at most so many images: a late layer, vectors, an early layer, a wide one, and bases of the
# size of a sparse autoencoder
CASES = ((1280, 7, None), (512, 1, None), (64, 112, None), (2048, 7, None), (65536, 7, 1000), (65536, 1, 1000))
BUDGETS = (1280 << 20, 256 << 20)


def run(data: Path, options: argparse.Namespace) -> Table:
    """A cheap network on all images of the set, or --limit. Peak: resident memory beyond that of the process before."""
    rows = Table(
        "Memory and disk",
        {
            "units": ("units", table.whole),
            "side": ("map side", table.whole),
            "images": ("images", table.whole),
            "concepts": ("concepts", table.whole),
            "budget_bytes": ("--memory", table.megabytes),
            "passes": ("passes", table.whole),
            "blocks": ("blocks", table.whole),
            "peak_bytes": ("peak beyond start", table.megabytes),
            "result_bytes": ("of which results", table.megabytes),
            "disk_bytes": ("disk", table.megabytes),
            "again": ("forwarded again", table.whole),
            "wall_s": ("time", table.seconds),
        },
    )
    for units, side, most in CASES:
        if options.units and units not in options.units:
            continue
        limit = min(filter(None, (options.limit, most)), default=None)
        for budget in BUDGETS:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                rows.add(**pool.submit(_measure, data, units, side, limit, budget).result())
    return rows


def _measure(root: Path, units: int, side: int, limit: int | None, budget: int) -> dict[str, int | float]:
    data = broden.open(root, limit=limit)
    torch.manual_seed(0)
    said: list[str] = []
    before, start = _resident("VmRSS"), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = pipeline.dissect(
            Units(units, side),
            data,
            pipeline.Method(("layer",), mean=MEAN, std=STD),
            pipeline.Resources(Path(folder) / "work", memory=budget),
            announce=said.append,
            own=True,
        )
    layer = result.layers["layer"]
    arrays = (
        layer.intersection, layer.area, layer.block_intersection, layer.block_area, layer.exemplars.maps, layer.peaks,
    )  # fmt: skip
    passes = re.match(r"\d+", said[0])
    assert passes is not None
    return {
        "units": units,
        "side": side,
        "images": len(data),
        "concepts": len(data.labels.present()),
        "budget_bytes": budget,
        "passes": int(passes.group()),
        "blocks": len(layer.block_area),
        "peak_bytes": _resident("VmHWM") - before,
        "result_bytes": sum(array.nbytes for array in arrays),
        "disk_bytes": result.disk_bytes,
        "again": result.forwarded_again,
        "wall_s": time.perf_counter() - start,
    }


def _resident(field: str) -> int:
    """VmRSS (now) or VmHWM (largest so far) of this process in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1)) * 1024
