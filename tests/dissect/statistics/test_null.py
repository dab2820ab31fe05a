"""The null: p-values by hand, uniform where there is nothing to find, small where a unit is a concept."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import broden
from dissect import null, pipeline
from dissect.statistics import Null, false_discovery_rates
from tests.campaigns.null import distance, false_share, p_values
from tests.dissect.tiny import TinySet


def test_p_values_by_hand() -> None:
    drawn = np.array([[0.1, 0.4, 0.0], [0.2, 0.1, 0.0], [0.3, 0.1, 0.0]])
    null = Null(10, np.array([0.2, 0.5, 0.0]), drawn)
    assert null.p_values().tolist() == [3 / 4, 1 / 4, 1.0]
    np.testing.assert_allclose(null.expected(), [0.2, 0.2, 0.0])


def test_rates_by_hand() -> None:
    """The worked example of Benjamini & Hochberg's procedure: p sorted, times m / rank, made monotone from above."""
    found = false_discovery_rates(np.array([0.04, 0.01, 0.5, 0.02]))
    np.testing.assert_allclose(found, [0.04 * 4 / 3, 0.04, 0.5, 0.04])
    assert (false_discovery_rates(np.ones(3)) == 1).all()


def test_p_values_are_uniform_where_there_is_nothing_to_find(tmp_path: Path) -> None:
    """A fixed part of `python -m tests.campaigns.null`."""
    data = broden.synth(tmp_path / "set", images=400, size=32)
    found = np.concatenate([p_values(data, 48, 39, seed) for seed in range(3)])
    assert distance(found) < 1.63 / np.sqrt(len(found)) + 1 / 40


def test_false_discoveries_are_as_rare_as_promised(tmp_path: Path) -> None:
    """Half of the units see a colour; the others are 5 % of the discoveries at most, on average, but for chance."""
    data = broden.synth(tmp_path / "set", images=400, size=32)
    shares, counts = zip(*(false_share(p_values(data, 48, 99, seed, seeing=24), 24) for seed in range(4)))
    assert sum(counts) > 4 * 12
    assert np.mean(shares) < 0.1


def test_moved_labels_are_another_null(tmp_path: Path) -> None:
    """Maps that prefer the places where labels lie are no chance once labels are moved; draws that keep places know."""

    class Centred(TinySet):
        def _blob(self, rng: np.random.Generator, label: int) -> np.ndarray:
            plane = np.zeros((self.size, self.size), np.int64)
            plane[2:6, 2:6] = label
            return plane

    class Middle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.generator = nn.Identity(), torch.Generator().manual_seed(1)

        def __deepcopy__(self, memo: dict[int, object]) -> "Middle":
            return self

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps = torch.zeros(len(x), 1, 8, 8)
            maps[:, :, 2:6, 2:6] = torch.rand(len(x), 1, 1, 1, generator=self.generator)
            found: torch.Tensor = self.layer(maps)
            return found

    data = broden.open(Centred(tmp_path / "centred", images=96).folder)
    p = {}
    for shifts in (False, True):
        method = pipeline.Method(("layer",), null=39, null_shifts=shifts, quantile=0.1)
        layer = pipeline.dissect(Middle(), data, method, pipeline.Resources(tmp_path / "w"), own=True).layers["layer"]
        assert layer.null is not None
        p[shifts] = layer.null.p_values()[0]
    assert p[False] > 0.1
    assert p[True] == 1 / 40


def test_a_planted_unit_is_no_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unit 0 is the mask of cat; unit 1 is the brightness of noise, so it can only be chance."""

    class Cat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seeded = torch.Generator().manual_seed(5)
            cat = (x[:, 0, ::2, ::2] * 255).sub(60).abs() < 1
            maps: torch.Tensor = self.layer(torch.stack([cat, torch.rand(cat.shape, generator=seeded)], 1))
            return maps

    monkeypatch.setattr(null, "FEWEST", 1)
    data = broden.open(TinySet(tmp_path / "tiny", images=48).folder)
    method = pipeline.Method(("layer",), null=39, quantile=0.25, mean=(0, 0, 0), std=(1, 1, 1))
    results = [
        pipeline.dissect(Cat(), data, method, pipeline.Resources(tmp_path / name)).layers["layer"] for name in "ab"
    ]
    chance = results[0].null
    assert chance is not None
    assert chance.observed[0] == 1
    assert chance.p_values()[0] == 1 / 40
    assert chance.p_values()[1] > 0.05
    assert results[1].null is not None
    np.testing.assert_array_equal(results[1].null.drawn, chance.drawn)
