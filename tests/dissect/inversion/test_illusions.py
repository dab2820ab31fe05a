import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dissect.errors import SpecError
from dissect.inversion import fooling, illusions
from dissect.inversion.illusions import Choice, Plan, Stimulus
from dissect.inversion.network import Network
from dissect.inversion.pixels import InputRange
from dissect.inversion.retina import Retina
from tests.dissect.inversion.nets import small

CENTRE = torch.tensor([[15.5, 15.5]], dtype=torch.float64)
PIXELS = fooling.DIGIT_PIXELS


def test_the_retina_is_the_identity_at_slope_zero_and_inside_the_fovea() -> None:
    z = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    assert torch.equal(Retina(5.0, 0.0)(z, CENTRE), z)
    seen = Retina(6.0, 0.1)(z, CENTRE)
    rows, columns = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
    inside = torch.hypot(rows, columns) <= 6
    torch.testing.assert_close(seen[..., inside], z[..., inside])
    assert not torch.allclose(seen[..., ~inside], z[..., ~inside])


@given(st.floats(0, 20), st.floats(0, 0.5), st.floats(0, 31), st.floats(0, 31))
@settings(max_examples=20, deadline=None)
def test_the_retina_is_linear_a_partition_of_unity_and_never_adds(
    fovea: float, slope: float, row: float, column: float
) -> None:
    retina, gaze = Retina(fovea, slope), torch.tensor([[row, column]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(1, 2, 32, 32, generator=generator, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(retina(2 * x - y, gaze), 2 * retina(x, gaze) - retina(y, gaze))
    torch.testing.assert_close(retina(torch.ones_like(x), gaze), torch.ones_like(x))
    assert float(retina(x, gaze).abs().max()) <= float(x.abs().max()) + 1e-12
    assert float(retina(x, gaze).square().sum()) <= float(x.square().sum()) * (1 + 1e-12)


def test_blur_grows_with_distance() -> None:
    noise = torch.randn(16, 1, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = Retina(6.0, 0.08)(noise, torch.tensor([[31.5, 31.5]], dtype=torch.float64).expand(16, 2))
    rows, columns = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    distance = torch.hypot(rows, columns)
    bands = [float(seen[..., (distance >= a) & (distance < a + 6)].var()) for a in (0, 8, 14, 20, 26)]
    assert all(b < a for a, b in zip(bands, bands[1:]))


def digit_networks(count: int) -> list[Network]:
    images, labels = fooling.digits(700, 3, 16)
    made = []
    for seed in range(count):
        module = fooling.train(
            lambda n: fooling.small_network(n, 16),
            10,
            PIXELS.from_uint8(images),
            torch.from_numpy(labels),
            PIXELS,
            4,
            seed,
        )
        made.append(Network(module, PIXELS, (16, 16), f"digits {seed}"))
    return made


def test_an_ensemble_moves_a_held_out_network_more_than_the_flipped_control_and_the_photo() -> None:
    networks = digit_networks(5)
    choice = Choice("three", (3,), "nine", (9,))
    images, labels = fooling.digits(200, 9, 16)
    z = PIXELS.from_uint8(images[(labels == 3) | (labels == 9)])
    truth = [int(label == 9) for label in labels if label in (3, 9)]
    towards = [1 - t for t in truth]
    plan = Plan(reach=32.0, steps=12, retina=Retina(5.0, 0.05))
    rates = {}
    for size in (1, 4):
        changed = illusions.illude(networks[:size], z, towards, choice, plan)
        assert float((changed - z).abs().max()) <= 32.0 * (1 + 1e-6)
        conditions = {
            "image": (z, towards),
            "adv": (changed, towards),
            "flip": (illusions.flipped(z, changed, networks[0]), towards),
        }
        rates[size] = illusions.judge(networks[4:], conditions, choice, networks[0])["digits 4"]
    assert rates[4]["adv"] > rates[4]["flip"] >= 0
    assert rates[4]["flip"] + 0.2 < rates[4]["adv"]
    assert rates[4]["image"] < 0.05
    assert rates[4]["adv"] >= rates[1]["adv"]


def test_networks_of_other_sizes_and_ranges_see_the_same_picture() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    owner = Network(module, InputRange((0.5,) * 3, (0.25,) * 3), (12, 12))
    # The same module behind 0..255 pixels: what it is fed is the same.
    bytes_ = Network(module, InputRange((127.5,) * 3, (63.75,) * 3, 0.0, 255.0), (12, 12))
    z = torch.randn(3, 3, 12, 12) * 30
    members = torch.tensor([[1.0, 1, 0, 0]] * 3)
    torch.testing.assert_close(
        illusions.log_group(bytes_, z, members, owner),
        illusions.log_group(owner, z, members, owner),
        rtol=1e-4,
        atol=1e-5,
    )
    expected = owner.logits(z).softmax(1)[:, :2].sum(1).log()
    torch.testing.assert_close(illusions.log_group(owner, z, members, owner), expected)


def test_groups_must_be_two_and_apart() -> None:
    with pytest.raises(SpecError, match="none in common"):
        Choice("cat", (1, 2), "dog", (2, 3))
    with pytest.raises(SpecError, match="must hold classes"):
        Choice("cat", (), "dog", (2,))
    network = small((16, 16), classes=5)
    with pytest.raises(SpecError, match="class 9 of group 'dog' is out of range"):
        illusions.illude([network], torch.zeros(1, 3, 16, 16), [1], Choice("cat", (1,), "dog", (9,)), Plan(steps=1))
    with pytest.raises(SpecError, match="at least one network"):
        illusions.illude([], torch.zeros(1, 3, 16, 16), [1], Choice("cat", (1,), "dog", (2,)), Plan())


def test_stimuli_are_blinded(tmp_path: Path) -> None:
    """Nothing inside page/ tells the condition; key.csv outside does, completely."""
    pictures = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), dtype=np.uint8)
    stimuli = [
        Stimulus(picture, ("image", "adv", "flip", "false")[i % 4], f"photo{i}.jpg", "cat", "dog<b>")
        for i, picture in enumerate(pictures)
    ]
    choice = Choice("cat", (1,), "dog<b>", (2,))
    written = illusions.export(tmp_path, stimuli, choice, seed=5)
    page = (tmp_path / "page" / "index.html").read_text()
    names = sorted(p.name for p in (tmp_path / "page").glob("*.png"))
    assert len(names) == 8
    for word in ("adv", "flip", "false-", "photo", "condition"):
        assert word not in page
        assert not any(word in name for name in names)
    assert "dog&lt;b&gt;" in page
    assert "<b>J</b> = dog<b>" not in page
    with open(tmp_path / "key.csv", newline="") as file:
        key = list(csv.DictReader(file))
    assert sorted(row["file"] for row in key) == names
    assert [row["file"] for row in key] != names  # the order of showing is not the order of names
    assert {row["condition"] for row in key} == {"image", "adv", "flip", "false"}
    assert illusions.export(tmp_path / "again", stimuli, choice, seed=5) == written
    assert "http" not in page.replace("http-equiv", "")
