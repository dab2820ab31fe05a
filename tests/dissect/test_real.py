"""Real networks on real labelled images, against what an independent slow script found (see the data's README)."""

import csv
from pathlib import Path

import numpy as np
import pytest

import broden
from dissect import models, pipeline, scores

CASES = [("squeezenet1_1", "features.12", None), ("mobilenet_v2", "features.18.1", (0.5, 0.5, 0.5))]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layer", "triple"), CASES)
def test_real_networks_equal_the_independent_results(
    shared_data: Path, tmp_path: Path, name: str, layer: str, triple: tuple[float, float, float] | None
) -> None:
    with open(shared_data / "expected" / f"{name}-{layer}.csv", newline="") as file:
        expected = list(csv.DictReader(file))
    model = models.load(name, shared_data / "weights" / f"{name}_imagenet.pth", mean=triple, std=triple, keep=(layer,))
    data = broden.open(shared_data / "broden_real")
    method = pipeline.Method((layer,), mean=model.preprocessing.mean, std=model.preprocessing.std)
    result = pipeline.dissect(model.module, data, method, pipeline.Resources(tmp_path), own=True)
    found = result.layers[layer]
    counts = scores.Counts(found.intersection, found.area, result.totals.area, np.array(data.labels.primary))
    labels = scores.label_units(counts)

    def column(key: str) -> np.ndarray:
        return np.array([float(row[key]) for row in expected])

    assert result.images == 1893
    assert np.allclose(found.threshold, column("threshold"), rtol=1e-4, atol=0)
    assert np.abs(labels.iou - column("iou")).max() <= 0.003
    clear = column("iou") - column("second_iou") > 0.001
    assert clear.sum() > 0.6 * len(clear)
    for unit in np.flatnonzero(clear):
        assert data.labels.names[labels.label[unit]] == expected[unit]["label"], unit
    same = [data.labels.names[number] == row["label"] for number, row in zip(labels.label, expected)]
    assert np.array_equal(result.totals.area[labels.label[same]], column("concept_area")[same])
