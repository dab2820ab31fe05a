"""Measures beside IoU equal what masks give when they are written out, and a run stores them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import broden
import dissect
from dissect import measures
from dissect.cli.main import main
from dissect.peaks import FEWEST, Peaks, average_precision, bytes_of, stride
from tests.dissect.tiny import TinySet

CODE = """
import torch
from torch import nn


def build():
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(3, 7, 3, stride=2, padding=1))
"""
MASKS = st.integers(1, 40).flatmap(lambda n: st.tuples(arrays(bool, n), arrays(bool, n)))


@given(MASKS)
def test_measures_equal_masks_written_out(masks: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = masks
    counts = np.array((x & y).sum()), np.array(x.sum()), np.array(y.sum())
    pixels = np.array(len(x))
    assert measures.precision(counts[0], counts[1]) == (y[x].mean() if x.any() else 0)
    assert measures.recall(counts[0], counts[2]) == (x[y].mean() if y.any() else 0)
    assert measures.f1(*counts) == pytest.approx(2 * (x & y).sum() / max(x.sum() + y.sum(), 1))
    varied = 0 < x.sum() < len(x) and 0 < y.sum() < len(y)
    phi, iqr = measures.phi(*counts, pixels), measures.iqr(*counts, pixels)
    if varied:
        assert phi == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)
    else:
        assert np.isnan(phi)
    joint = np.unique(np.stack([x, y]), axis=1, return_counts=True)[1] / len(x)
    entropy = [-(p * np.log(p)).sum() for p in (_shares(x), _shares(y), joint)]
    if entropy[2] > 0:
        assert iqr == pytest.approx((entropy[0] + entropy[1] - entropy[2]) / entropy[2], abs=1e-12)
    else:
        assert np.isnan(iqr)


def _shares(mask: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.unique(mask, return_counts=True)[1] / len(mask)
    return found


def test_measures_at_full_size() -> None:
    """63,305 images of 112 x 112 pixels: counts near 1e9 neither overflow nor lose the digits."""
    n = np.array(63_305 * 112 * 112)
    a, g = n // 200, n // 1000
    assert measures.phi(a * g // n, a, g, n) == pytest.approx(0, abs=1e-6)
    assert measures.phi(g, g, g, n) == pytest.approx(1, abs=1e-12)
    assert measures.iqr(g, g, g, n) == pytest.approx(1, abs=1e-12)
    assert measures.iqr(a * g // n, a, g, n) == pytest.approx(0, abs=1e-9)


@given(st.integers(1, 50), st.integers(1, 7), st.integers(1, 9), st.integers(1, 6))
def test_peaks_in_batches_shards_and_samples(images: int, units: int, every: int, size: int) -> None:
    values = np.random.default_rng(images).random((images, units)).astype(np.float32)
    whole, parts = Peaks(images, units, every), [Peaks(images, units, every) for _ in range(2)]
    spans = [range(first, min(first + size, images)) for first in range(0, images, size)]
    for at, span in enumerate(spans):
        for peaks in (whole, parts[at % 2]):
            peaks.update(span.start, torch.from_numpy(values[span.start : span.stop]))
    assert whole.value.numpy().tobytes() == np.ascontiguousarray(values[::every]).tobytes()
    merged = Peaks(images, units, every)
    for k, part in enumerate(parts):
        merged.take(part.cut(spans[k::2]), spans[k::2])
    assert merged.value.equal(whole.value)


@given(st.integers(1, 100_000), st.integers(1, 70_000), st.integers(1, 1 << 30))
def test_peaks_stay_in_their_budget(images: int, units: int, budget: int) -> None:
    every = stride(images, units, budget)
    assert bytes_of(images, units, every) <= max(budget, 4 * units)
    assert every == 1 or bytes_of(images, units, every - 1) > budget


def test_rare_concepts_are_not_ranked() -> None:
    holding = [np.array([1, 2] if i < FEWEST - 1 else [2], np.int32) for i in range(40)]
    peaks = np.arange(40, 0, -1, dtype=np.float32)[:, None]
    found = average_precision(peaks, holding, np.array([-1, 0, 0]), np.array([0, 0]), np.array([1, 2]))
    assert np.isnan(found[0])
    assert found[1] == 1


def peaks_of(data: broden.Dataset, code: Path) -> np.ndarray:
    """[N, U], one image at a time."""
    scope: dict[str, Any] = {}
    exec(code.read_text(), scope)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        images = (torch.from_numpy(data.read_image(i).copy()).permute(2, 0, 1).float() / 255 for i in range(len(data)))
        found: np.ndarray = np.stack([scope["build"]()((x - mean) / std).amax((1, 2)).numpy() for x in images])
    return found


@pytest.mark.parametrize("convention", ["exact", "netdissect", "lite", "dissect2020"])
def test_a_run_stores_what_its_arrays_give(tmp_path: Path, convention: str) -> None:
    """Average precision by sorting thresholds, phi by the images that hold the category, for every stored pair."""
    tiny, code = TinySet(tmp_path / "data", images=60), tmp_path / "net.py"
    code.write_text(CODE)
    trust = hashlib.sha256(code.read_bytes()).hexdigest()
    asked = ["run", f"{code}:build", "--trust-code", trust, "--data", str(tiny.folder), "--layer", "0", "--name", "r"]
    settings = ["--convention", convention, "--quantile", "0.05", "--workspace", str(tmp_path / "w"), "--no-report"]
    assert main(asked + settings) == 0
    rows = list(dissect.open(tmp_path / "w").units(run="r", rank="all").rows)
    assert len(rows) > 20
    data = broden.open(tiny.folder)
    peaks = peaks_of(data, code)
    holds = np.stack([tiny.holds(i).any((1, 2)) for i in range(60)])
    numbers = {label.name: label.number for label in data.labels.present()}
    ranked = 0
    for row in rows:
        c = numbers[row["concept"]]
        among = np.flatnonzero(holds[:, [n for n in numbers.values() if tiny.primary[n] == tiny.primary[c]]].any(1))
        truth, score = holds[among, c], peaks[among, row["unit"]]
        if truth.sum() < FEWEST:
            assert row["ap"] is None
        else:
            # float rounding may part two images that are next to each other
            assert row["ap"] == pytest.approx(np.mean([truth[score >= v].mean() for v in score[truth]]), abs=1e-2)
            ranked += 1
        meeting, a, g = row["intersection"], row["unit_area"], row["concept_area"]
        assert (row["precision"], row["recall"], row["f1"]) == (meeting / a, meeting / g, 2 * meeting / (a + g))
        if convention in ("netdissect", "lite"):
            assert row["phi"] is row["iqr"] is None
        else:
            pixels = tiny.size**2 * (60 if convention == "dissect2020" else len(among))
            cells = [meeting, a - meeting, g - meeting, pixels - a - g + meeting]
            x, y = np.repeat([1, 1, 0, 0], cells), np.repeat([1, 0, 1, 0], cells)
            if y.all():  # all that the images hold of the category
                assert row["phi"] is None
            else:
                assert row["phi"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
    assert ranked > 10
