"""From the result of the method to rows of the store and files beside it."""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import broden
from dissect import conventions, measures, ops, pipeline, scores, statistics
from dissect.peaks import average_precision
from dissect.preparing import Prepared
from dissect.process import code_version, peak_rss
from dissect.store import Store
from dissect.store.records import (
    CategoryRecord,
    ConceptRecord,
    ExcludedRecord,
    ExemplarTable,
    LayerRecord,
    RunRecord,
    UnitTable,
)


def record(store: Store, prepared: Prepared, result: pipeline.Result, start: float) -> RunRecord:
    """Write the result of a run that has begun: counts and exemplars as files, everything else as rows in one
    transaction. start: `time.perf_counter()` when the work on it began."""
    data, workspace, run_id = prepared.data, store.workspace, prepared.run_id
    primary = np.array(data.labels.primary)
    cut = conventions.get(prepared.method.convention).cut
    pixels = _pixels(prepared, result, primary)
    layers = []
    for position, layer in enumerate(result.layers.values()):
        name = workspace.save_counts(run_id, position, layer.intersection)
        workspace.save_array(workspace.exemplar_maps(run_id, position), layer.exemplars.maps)
        if layer.histogram is not None:
            edges, counts = workspace.histogram_files(run_id, position)
            workspace.save_array(edges, layer.histogram.edges)
            workspace.save_array(counts, layer.histogram.count)
        layers.append(_layer_record(layer, result, data, primary, pixels, cut, name))
    return store.finish_run(
        run_id,
        layers,
        [
            ConceptRecord(
                label.number, label.name, int(primary[label.number]), int(result.totals.area[label.number]),
                label.frequency, label.coverage, int(result.totals.images[label.number]), tuple(label.synonyms),
            )
            for label in data.labels.present()
        ],
        [
            CategoryRecord(category.index, category.name, int(pixels[category.index]) if pixels is not None else None)
            for category in data.categories
        ],
        [ExcludedRecord(fault.position, fault.file, fault.reason) for fault in result.faults],
        images=result.images,
        excluded_images=len(result.faults),
        provenance=_provenance(prepared, result),
        timings=vars(result.timings) | {"report_s": 0.0, "wall_s": time.perf_counter() - start},
        peak_rss_bytes=peak_rss(),
    )  # fmt: skip


def _layer_record(
    layer: pipeline.LayerResult,
    result: pipeline.Result,
    data: broden.Dataset,
    primary: np.ndarray,
    pixels: np.ndarray | None,
    cut: float,
    counts_file: str,
) -> LayerRecord:
    counts = scores.Counts(layer.intersection, layer.area, result.totals.area, primary)
    labels = scores.label_units(counts)
    pairs, stable = _trusted(layer, result, primary, scores.score_table(counts))
    pairs = _measured(layer, result, primary, pixels, pairs)
    top = layer.exemplars
    unit, rank = np.nonzero(top.image >= 0)
    position = top.image[unit, rank]
    place = top.place[unit, rank]
    return LayerRecord(
        name=layer.layer,
        map_h=layer.map_size[0],
        map_w=layer.map_size[1],
        activations=layer.n,
        top_k=layer.k,
        cut=cut,
        detectors=int(labels.detectors(cut).sum()),
        unique_detectors=labels.unique_detectors(cut),
        unique_concepts=labels.unique_concepts(cut),
        units=UnitTable(
            layer.threshold, layer.low, layer.high, layer.mean, layer.std, layer.dead, layer.saturated, layer.nonfinite,
            layer.mask, labels.label, labels.iou, stable,
            *_chances(layer),
        ),
        unit_areas=layer.area,
        scores=pairs,
        exemplars=ExemplarTable(
            unit, rank + 1, position, np.array([data.rows[p].image for p in position.tolist()], object),
            top.value[unit, rank].astype(np.float64), place // layer.map_size[1], place % layer.map_size[1],
        ),
        counts_file=counts_file,
    )  # fmt: skip


def _chances(layer: pipeline.LayerResult) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """p- and q-values of the labels and the IoU that chance gives, each [U], where the run has a null."""
    if layer.null is None:
        return None, None, None
    p = layer.null.p_values()
    return p, statistics.false_discovery_rates(p), layer.null.expected()


def _trusted(
    layer: pipeline.LayerResult, result: pipeline.Result, primary: np.ndarray, pairs: scores.ScoreTable
) -> tuple[scores.ScoreTable, np.ndarray | None]:
    """The stored pairs with their intervals, and the stability [U] of the labels, where the run has counts by block."""
    blocks = len(layer.block_area)
    if not blocks:
        return pairs, None
    intersection = layer.block_intersection[:, pairs.unit, pairs.concept]
    concept_area = result.totals.folded(blocks)[:, pairs.concept]
    union = layer.block_area[:, pairs.unit, primary[pairs.concept]] + concept_area - intersection
    low, high = statistics.intervals(intersection, union)
    stable = statistics.stability(pairs.unit, pairs.rank, intersection, union, layer.units)
    return replace(pairs, iou_low=low, iou_high=high), stable


def _measured(
    layer: pipeline.LayerResult,
    result: pipeline.Result,
    primary: np.ndarray,
    pixels: np.ndarray | None,
    pairs: scores.ScoreTable,
) -> scores.ScoreTable:
    """The stored pairs with what stands beside IoU."""
    holding = result.totals.holding[:: result.every]
    pairs = replace(pairs, ap=average_precision(layer.peaks, holding, primary, pairs.unit, pairs.concept))
    if pixels is None:
        return pairs
    counts = pairs.intersection, pairs.unit_area, pairs.concept_area, pixels[primary[pairs.concept]]
    return replace(pairs, phi=measures.phi(*counts), iqr=measures.iqr(*counts))


def _pixels(prepared: Prepared, result: pipeline.Result, primary: np.ndarray) -> np.ndarray | None:
    """Pixels [K] over which areas of units count towards each category; None where the convention has no such set."""
    convention = conventions.get(prepared.method.convention)
    if not convention.counts_pixels:
        return None
    height, width = prepared.data.label_size
    count = len(prepared.data.categories)
    every = convention.area == conventions.EVERY_IMAGE
    images = np.full(count, result.images) if every else result.totals.category_images(primary, count)
    return images * (height * width)


def _provenance(prepared: Prepared, result: pipeline.Result) -> dict[str, Any]:
    import PIL
    import torch
    from PIL import features

    return {
        "data_root": str(Path(prepared.request.data or "").absolute()),
        "model_notes": list(prepared.model.notes),
        "preprocessing": prepared.model.preprocessing.origin,
        "thresholds": f"given by {prepared.request.thresholds.name}" if prepared.request.thresholds else "exact",
        "kernels": ops.backend()["cpu"],
        "device": prepared.request.device,
        "device_name": torch.cuda.get_device_name() if prepared.request.device.startswith("cuda") else "",
        "threads": torch.get_num_threads(),
        "null": _null_facts(result),
        "ranked_images": -(-(result.images + len(result.faults)) // result.every),
        "forward_step": result.step,
        "forwarded_again": result.forwarded_again,
        "temporary_disk_bytes": result.disk_bytes,
        "spilled_bytes": result.spilled_bytes,
        "versions": {
            "dissect": code_version(),
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "jpeg": features.version_feature("libjpeg_turbo") or features.version("jpg"),
            "zlib": features.version("zlib"),
        },
    }


def _null_facts(result: pipeline.Result) -> dict[str, int] | None:
    null = next(iter(result.layers.values())).null
    return {"draws": null.draws, "images": null.images} if null else None
