import math

import pytest
import torch
from torch import nn

from dissect.errors import SpecError
from dissect.inversion import maximize
from dissect.inversion.maximize import Recipe
from dissect.inversion.network import Network
from dissect.inversion.pixels import InputRange
from tests.dissect.inversion.nets import grey_photos, linear, small


def test_on_a_linear_network_simonyans_picture_is_its_weights() -> None:
    """argmax <w, z> - lambda |z / 255|^2 = w 255^2 / (2 lambda): cosine over .9999, and the length too."""
    network = linear(3, dtype=torch.float32)
    target = maximize.classes(network, [0, 2])
    made = maximize.maximize(network, target, Recipe("simonyan", decay=2.0)).images.flatten(1)
    std = torch.tensor(network.pixels.std).repeat_interleave(36) * 255
    w = network.module[1].weight.detach()[[0, 2]] / std
    expected = w * 255**2 / (2 * 2.0)
    assert float(torch.cosine_similarity(made, expected).min()) > 0.9999
    torch.testing.assert_close(made, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("name", maximize.RECIPES)
def test_every_recipe_beats_every_real_picture_and_stays_legal(name: str) -> None:
    network = small((24, 24))
    target = maximize.units(network, "three", [1, 4])
    real = grey_photos(10, network, low=0.0, high=1.0)
    peaks = maximize.answers(network, real, target).amax(0)
    used = peaks.clamp(min=1e-3)
    made = maximize.maximize(network, target, Recipe(name, restarts=2, shorter=2), used)
    low, high = network.pixels.limits(made.images)
    assert made.images.shape == (4, 3, 24, 24)
    assert bool(((made.images >= low) & (made.images <= high)).all())
    told = maximize.judge(network, made.images, target, real)
    grey = maximize.answers(network, torch.zeros(1, 3, 24, 24), target)[0]
    assert all(one.synthetic > float(start) for one, start in zip(told, grey))
    if name not in {"simonyan", "yosinski"}:  # whose decay and blur keep pictures faint
        assert all(one.beats_all for one in told)


def test_a_direction_is_followed_and_a_unit_is_the_direction_that_is_one_there() -> None:
    network = small((16, 16))
    unit = maximize.units(network, "three", [3])
    assert torch.equal(unit.directions, torch.eye(16)[3:4])
    directions = maximize.random_directions(network, "three", 5, seed=1)
    torch.testing.assert_close(directions.directions.norm(dim=1), torch.ones(5))
    assert not torch.equal(directions.directions, maximize.random_directions(network, "three", 5, seed=2).directions)
    made = maximize.maximize(network, directions, Recipe("fourier", shorter=8))
    answers = maximize.answers(network, made.images, directions)
    own = answers.diagonal()
    others = (answers.sum(0) - own) / 4
    assert bool((own > others).all())


def test_a_judgement_cannot_be_gamed_by_real_or_grey_pictures() -> None:
    network = small((24, 24))
    target = maximize.units(network, "three", [0])
    real = grey_photos(12, network)
    grey = torch.zeros(1, 3, 24, 24)
    told = maximize.judge(network, grey, target, real)[0]
    assert told.best_real is not None
    assert told.beats_all == (told.synthetic > told.best_real)
    best = int(maximize.answers(network, real, target)[:, 0].argmax())
    copied = maximize.judge(network, real[best : best + 1], target, real)[0]
    assert abs(copied.gain_sd or 0) < 1.0  # a real picture gains nothing but the luck of its jitter
    alone = maximize.judge(network, grey, target, None)[0]
    assert (alone.best_real, alone.gain_sd, alone.beats_all) == (None, None, None)


def test_fresh_jitter_is_not_that_of_the_search() -> None:
    network = small((24, 24))
    target = maximize.units(network, "three", [0], "centre")
    z = grey_photos(3, network)
    assert torch.equal(maximize.answers(network, z, target, seed=1), maximize.answers(network, z, target, seed=1))
    assert not torch.equal(maximize.answers(network, z, target, seed=1), maximize.answers(network, z, target, seed=2))


def test_a_second_network_is_shown_the_stored_picture_in_its_own_range() -> None:
    """The same module behind another scale of pixels must give what the first gives to the 8-bit picture."""
    network = small((16, 16))
    scaled = [255 * v for v in network.pixels.mean], [255 * v for v in network.pixels.std]
    bytes_ = InputRange(tuple(scaled[0]), tuple(scaled[1]), 0.0, 255.0)
    second = Network(network.module, bytes_, (16, 16))
    made = grey_photos(4, network)
    target = maximize.classes(network, [2, 0])
    told = maximize.judge(network, made, target, None, second, [2, 0])
    odds = network.logits(network.pixels.quantise(made)).softmax(1).detach().unflatten(0, (2, 2))
    for i, number in enumerate((2, 0)):
        assert told[i].second_probability == pytest.approx(float(odds[i, :, number].mean()), rel=1e-3)
        assert told[i].second_rank == float((odds[i] > odds[i, :, number : number + 1]).sum(1).double().mean())


def test_receptive_side_of_a_stack_of_convolutions() -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 5, stride=2, padding=2), nn.Conv2d(3, 2, 3)
    )
    network = Network(module, InputRange((0.5,), (0.25,)), (32, 32))
    assert [maximize.receptive_side(network, name) for name in ("0", "2", "3")] == [3, 7, 11]


def test_natural_needs_the_peaks_of_live_units() -> None:
    network = small((16, 16))
    target = maximize.units(network, "three", [0])
    for peaks in (None, torch.zeros(1)):
        with pytest.raises(SpecError, match="largest answer over real images"):
            maximize.plan(network, target, Recipe("natural"), peaks)


def test_targets_out_of_range_and_unknown_recipes_are_refused() -> None:
    network = small((16, 16), classes=5)
    with pytest.raises(SpecError, match="class 7 is out of range"):
        maximize.classes(network, [7])
    with pytest.raises(SpecError, match="unit 16 is out of range"):
        maximize.units(network, "three", [16])
    with pytest.raises(SpecError, match="recipe 'lucid' is unknown"):
        Recipe("lucid")
    with pytest.raises(SpecError, match="variant 0 to 3"):
        Recipe("yosinski", variant=4)


def test_same_seed_same_bytes() -> None:
    network = small((16, 16))
    target = maximize.classes(network, [1])
    for name in ("fourier", "pattern", "inceptionism"):
        first, again, other = (
            maximize.maximize(network, target, Recipe(name, shorter=40, seed=s)).images for s in (0, 0, 1)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
    assert math.isfinite(float(first.sum()))


def test_a_unit_that_the_start_leaves_silent_is_woken() -> None:
    """Behind a ReLU a bias keeps the unit at 0 for every picture near grey: no gradient, unless the ReLU leaks."""
    convolution = nn.Conv2d(3, 2, 5, padding=2)
    nn.init.constant_(convolution.weight, 0.1)
    nn.init.constant_(convolution.bias, -0.5)
    network = Network(nn.Sequential(convolution, nn.ReLU()), InputRange((0.5,) * 3, (0.5,) * 3), (16, 16), "silent")
    target = maximize.units(network, "1", [0], "centre")
    start = maximize.plan(network, target, Recipe(seed=1)).image
    assert float(maximize.answers(network, start.image(start.start(torch.zeros(1).numpy().astype("u8"))), target)) == 0
    made = maximize.maximize(network, target, Recipe(seed=1, shorter=8))
    assert made.stopped == [None]
    assert float(maximize.answers(network, made.images, target)) > 1
