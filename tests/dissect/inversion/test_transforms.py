import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dissect.errors import SpecError
from dissect.inversion import draws
from dissect.inversion.draws import Draws
from dissect.inversion.transforms import (
    Affine,
    Centre,
    Crops,
    Fit,
    Pad,
    Roll,
    Transform,
    Window,
    octave_sizes,
    roll,
)

ALL: list[Transform] = [
    Roll(3), Window(5, 6), Centre(5, 6), Pad(2), Affine((0.8, 1.2), 20.0), Crops((0.3, 0.6)), Fit(12, 9),
]  # fmt: skip


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 2, 8, 9, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def test_a_roll_keeps_every_pixel_and_unrolls() -> None:
    z = images()
    down, right = np.array([3, -2, 0]), np.array([-1, 4, 8])
    moved = roll(z, down, right)
    for before, after in zip(z, moved):
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)
    assert not torch.equal(moved, z)
    assert torch.equal(roll(moved, -down, -right), z)


@pytest.mark.parametrize("transform", ALL, ids=str)
def test_transforms_are_linear_and_pass_gradients_back_exactly(transform: Transform) -> None:
    """<T x, y> = <x, T' y> with T' the gradient; and T (a x + b y) = a T x + b T y at the same draws."""
    seeds = draws.seeds(1, 3)
    z = images().requires_grad_(True)
    out = transform(z, Draws(seeds, 4))
    y = torch.randn(out.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    (back,) = torch.autograd.grad((out * y).sum(), z)
    assert math.isclose(float((out.detach() * y).sum()), float((z.detach() * back).sum()), rel_tol=1e-10)
    other = images().flip(0)
    mixed = transform(2 * z.detach() - 3 * other, Draws(seeds, 4))
    torch.testing.assert_close(mixed, 2 * out.detach() - 3 * transform(other, Draws(seeds, 4)))


@pytest.mark.parametrize("transform", ALL, ids=str)
def test_a_sample_is_moved_the_same_whatever_stands_beside_it(transform: Transform) -> None:
    seeds = draws.seeds(9, 3)
    together = transform(images(), Draws(seeds, 2))
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], transform(images()[i : i + 1], Draws(seeds[i : i + 1], 2)))


def test_affine_without_scale_and_angle_is_the_identity() -> None:
    torch.testing.assert_close(Affine()(images(), Draws(draws.seeds(0, 3), 0)), images())


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    z = torch.randn(1, 1, 7, 7, dtype=torch.float64)

    class Quarter(Draws):
        def uniform(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
            return np.array([high])

    turned = Affine((1.0, 1.0), 90.0)(z, Quarter(draws.seeds(0, 1), 0))
    either = [torch.rot90(z, k, (2, 3)) for k in (1, 3)]
    assert any(torch.allclose(turned, other, atol=1e-9) for other in either)


def test_a_window_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SpecError, match="does not fit"):
        Window(20, 5)(images(), Draws(draws.seeds(0, 3), 0))


def test_octaves() -> None:
    assert octave_sizes(224, 280, 3, 1.4, 32) == [(114, 142), (160, 200), (224, 280)]
    with pytest.raises(SpecError, match="too small for 6 octaves"):
        octave_sizes(64, 64, 6, 1.4, 32)
    with pytest.raises(SpecError, match="ratio above 1"):
        octave_sizes(64, 64, 2, 1.0, 8)


@given(st.integers(0, 2**40), st.integers(0, 10**6), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_draws_stay_in_range_and_repeat(seed: int, step: int, reach: int) -> None:
    first, again = Draws(draws.seeds(seed, 6), step), Draws(draws.seeds(seed, 6), step)
    values = first.integers(-reach, reach)
    assert np.array_equal(values, again.integers(-reach, reach))
    assert values.min() >= -reach
    assert values.max() <= reach
    assert not np.array_equal(first.uniform(), first.uniform())


def test_draws_are_uniform_over_samples_and_over_steps() -> None:
    over_samples = Draws(draws.seeds(3, 20000), 7).uniform()
    over_steps = np.concatenate([Draws(draws.seeds(3, 1), step).uniform() for step in range(5000)])
    for values in (over_samples, over_steps):
        distance = np.abs(np.sort(values) - (np.arange(len(values)) + 0.5) / len(values)).max()
        assert distance < 1.95 / math.sqrt(len(values))  # Kolmogorov-Smirnov at about 0.1 %


def test_noise_of_a_sample_hangs_on_its_own_seed() -> None:
    every = draws.normal(draws.seeds(2, 4), (3, 5))
    assert torch.equal(every[2], draws.normal(draws.seeds(2, 1, first=2), (3, 5))[0])
    assert not torch.equal(every[0], every[1])
