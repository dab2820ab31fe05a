"""Memory and disk of whole dissections, each in a process of its own, against the budget that they were given."""

import argparse
import multiprocessing
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

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
    """A cheap network on all images of the set, or --limit. Peak: resident memory beyond that of a plain script that
    decodes the images with Pillow and forwards them, each beyond its process before."""
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
            "peak_bytes": ("peak beyond the plain script", table.megabytes),
            "plain_bytes": ("plain script", table.megabytes),
            "result_bytes": ("of which results", table.megabytes),
            "spilled_bytes": ("candidates on disk", table.megabytes),
            "disk_bytes": ("saved state included", table.megabytes),
            "again": ("forwarded again", table.whole),
            "wall_s": ("time", table.seconds),
        },
    )
    for units, side, most in CASES:
        if options.units and units not in options.units:
            continue
        limit = min(filter(None, (options.limit, most)), default=None)
        plain = _alone(_plain, data, units, side)
        for budget in BUDGETS:
            found = _alone(_measure, data, units, side, limit, budget)
            rows.add(**found | {"plain_bytes": plain, "peak_bytes": found["peak_bytes"] - plain})
    return rows


def _alone(work: Callable[..., Any], *arguments: object) -> Any:
    """What a function gives in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _plain(root: Path, units: int, side: int) -> int:
    """Peak of the plain script over 20 batches of 32 images."""
    data, network = broden.open(root, limit=640), Units(units, side)
    before = _resident("VmRSS")
    with torch.no_grad():
        for first in range(0, len(data), 32):
            files = [root / "images" / row.image for row in data.rows[first : first + 32]]
            images = [np.array(Image.open(file).convert("RGB")) for file in files]
            network(torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images]))
    return _resident("VmHWM") - before


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
        "spilled_bytes": result.spilled_bytes,
        "disk_bytes": result.disk_bytes,
        "again": result.forwarded_again,
        "wall_s": time.perf_counter() - start,
    }


def _resident(field: str) -> int:
    """VmRSS (now) or VmHWM (largest so far) of this process in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1)) * 1024
