"""Bases: laws of rotations, exact sums, and maps that agree with the plain product."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dissect import bases
from dissect.activations import Taps
from dissect.errors import SpecError
from dissect.models import demo


def orthogonality(matrix: np.ndarray) -> float:
    return float(np.abs(matrix @ matrix.T - np.eye(len(matrix))).max())


@given(units=st.integers(1, 40), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_rotations_are_orthogonal_with_determinant_one(units: int, seed: int) -> None:
    q = bases.random_rotation(units, seed)
    assert orthogonality(q) < 1e-12
    assert np.linalg.det(q) == pytest.approx(1)


@given(units=st.integers(2, 40), seed=st.integers(0, 1000), a=st.floats(0, 1), b=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_powers_form_a_path(units: int, seed: int, a: float, b: float) -> None:
    q = bases.random_rotation(units, seed)
    one, other = bases.power(q, a), bases.power(q, b)
    assert orthogonality(one) < 1e-12
    if a + b <= 1:
        np.testing.assert_allclose(one @ other, bases.power(q, a + b), atol=1e-9)
    np.testing.assert_allclose(one @ bases.power(q, -a), np.eye(units), atol=1e-9)
    assert np.array_equal(bases.power(q, 0), np.eye(units))
    assert np.array_equal(bases.power(q, 1), q)


def test_a_power_agrees_with_the_square_root_by_the_schur_form() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    q = bases.random_rotation(64, 3)
    np.testing.assert_allclose(bases.power(q, 0.5), linalg.sqrtm(q).real, atol=1e-9)
    np.testing.assert_allclose(bases.power(q, 0.3), linalg.expm(0.3 * linalg.logm(q)).real, atol=1e-9)


def test_rotations_are_haar_distributed() -> None:
    """An entry of a Haar matrix has mean 0 and variance 1 / U; the trace has variance 1 (Diaconis & Shahshahani)."""
    drawn = np.stack([bases.random_rotation(8, seed) for seed in range(2000)])
    assert abs(drawn.mean(0)).max() < 4.5 * np.sqrt(1 / 8 / 2000)
    assert drawn.var(0) == pytest.approx(1 / 8, abs=0.02)
    assert np.trace(drawn, axis1=1, axis2=2).var() == pytest.approx(1, abs=0.12)


def test_random_directions_are_unit_vectors() -> None:
    found = bases.random_directions(32, 500, 1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    assert np.abs(found.mean(0)).max() < 5 / np.sqrt(32 * 500)


def maps_of(seed: int, shape: tuple[int, ...], spread: float = 3.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(
        (rng.standard_normal(shape) * np.exp(spread * rng.standard_normal(shape))).astype(np.float32)
    )


@given(seed=st.integers(0, 10**6), units=st.integers(1, 70), count=st.integers(1, 90))
@settings(max_examples=40, deadline=None)
def test_maps_agree_with_the_plain_product(seed: int, units: int, count: int) -> None:
    basis = bases.Basis(bases.random_directions(units, count, seed % 1000))
    maps = maps_of(seed, (2, 3, 3, units))
    expected = maps.double().numpy() @ basis.directions.T
    largest = np.abs(maps.numpy()).max(axis=-1, keepdims=True)
    found = basis(maps)
    assert found.shape == (2, 3, 3, count)
    assert found.dtype == torch.float32
    bound = units * largest * np.abs(basis.directions).max(axis=1) * 2.0**-21
    assert (np.abs(found.double().numpy() - expected) <= bound).all()


@pytest.mark.parametrize("units", [5, 256, 2048])
def test_order_of_units_places_and_threads_does_not_change_a_bit(units: int) -> None:
    directions = bases.random_directions(units, 64, 1)
    maps = maps_of(7, (3, 5, 5, units))
    expected = bases.Basis(directions)(maps)
    order = np.random.default_rng(0).permutation(units)
    assert torch.equal(bases.Basis(directions[:, order])(maps[..., torch.from_numpy(order)]), expected)
    basis = bases.Basis(directions)
    for image in range(3):
        assert torch.equal(basis(maps[image : image + 1]), expected[image : image + 1])
    assert torch.equal(bases.Basis(directions[10:20])(maps), expected[..., 10:20])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(basis(maps), expected)
    finally:
        torch.set_num_threads(threads)


def test_scaling_by_powers_of_two_is_exact_down_to_the_smallest_values() -> None:
    basis = bases.parse("rotate:seed=3", 16)
    maps = maps_of(1, (1, 4, 4, 16), spread=1)
    for shift in (-100, -40, 40, 100):
        assert torch.equal(basis(torch.ldexp(maps, torch.tensor(shift))), torch.ldexp(basis(maps), torch.tensor(shift)))
    tiny = torch.full((1, 1, 1, 16), 2.0**-149)
    assert basis(tiny).isfinite().all()
    assert torch.equal(basis(torch.zeros(1, 2, 2, 16)), torch.zeros(1, 2, 2, 16))


def test_no_rotation_gives_the_same_bits() -> None:
    maps = maps_of(1, (2, 4, 4, 16))
    maps[0, 0, 0, 3] = torch.nan
    assert bases.parse("rotate:seed=5,alpha=0", 16)(maps).equal(maps) is False  # NaN is not equal to itself
    assert bases.parse("rotate:seed=5,alpha=0", 16)(maps).numpy().tobytes() == maps.numpy().tobytes()


def test_a_bad_unit_reaches_only_the_directions_that_read_it() -> None:
    basis = bases.Basis(np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]]))
    maps = torch.ones(1, 1, 3, 3)
    maps[0, 0, 1, 0], maps[0, 0, 2, 1] = torch.inf, torch.nan
    found = basis(maps)[0, 0]
    assert found[0].tolist() == [3, 2]
    assert found[1].isnan().tolist() == [True, False]
    assert found[1, 1] == 2
    assert found[2].isnan().tolist() == [True, True]


def test_predictions_do_not_change_and_rotating_back_returns_them() -> None:
    network = demo.trained()
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = network(images)
    basis = bases.parse("rotate:seed=1,alpha=0.6", 128)
    with Taps(network, [demo.LAYER]) as taps:
        taps.forward(images)
        rotated = basis(taps.forward(images)[demo.LAYER])
    with torch.no_grad():
        assert torch.equal(network(images), before)
        back = bases.Basis(basis.directions.T.copy())(rotated).permute(0, 3, 1, 2)
        after = network.head(network.pool(back).flatten(1))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert torch.equal(after.argmax(1), before.argmax(1))


def test_files(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    directions = bases.random_directions(8, 20, 2).astype(np.float32)
    np.save(tmp_path / "d.npy", directions)
    save_file({"directions": directions, "bias": np.zeros(3, np.float32)}, tmp_path / "d.safetensors")
    maps = maps_of(1, (1, 2, 2, 8))
    one, other = (bases.parse(str(tmp_path / name), 8) for name in ("d.npy", "d.safetensors"))
    assert torch.equal(one(maps), other(maps))
    assert one.units == 20
    assert bases.recipe(str(tmp_path / "d.npy")).key.startswith("file:")
    assert one.sha256 == other.sha256
    with pytest.raises(SpecError, match="made for 8 units, the layer has 9"):
        bases.parse(str(tmp_path / "d.npy"), 9)


def test_keys_are_one_for_each_basis() -> None:
    assert bases.recipe("rotate").key == bases.recipe("rotate:alpha=1,seed=0").key == "rotate:seed=0,alpha=1.0"
    assert bases.recipe("random:seed=4").key == "random:seed=4"
    assert bases.recipe("random:directions=65536").key == "random:seed=0,directions=65536"
    assert bases.parse("random:directions=300", 16).units == 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spin", "expected rotate"),
        ("rotate:seed=x", "no setting"),
        ("rotate:seed", "no setting"),
        ("rotate:alpha=nan", "no setting"),
        ("rotate:beta=1", "option 'beta' is unknown, expected seed or alpha"),
        ("rotate:seed=-1", "expected a whole number"),
        ("rotate:seed=1.5", "expected a whole number"),
        ("rotate:alpha=2", "alpha is 2"),
        ("random:directions=65537", "expected 1 to 65,536"),
        ("random:directions=2.5", "directions are counted"),
        ("absent.npy", "cannot be read"),
    ],
)
def test_wrong_specs_are_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        bases.recipe(text)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3)), "direction 0 of the basis is zero"),
        (np.array([[1.0, 2], [np.nan, 1]]), "direction 1 of the basis holds NaN"),
        (np.ones(3), "a matrix"),
        (np.ones((2, 2), int), "of floats"),
        (np.ones((65537, 1), np.float32), "65,537 directions"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "d.npy", array)
    with pytest.raises(SpecError, match=message):
        bases.recipe(str(tmp_path / "d.npy"))
    (tmp_path / "d.npy").write_bytes(b"nothing")
    with pytest.raises(SpecError, match="is no array"):
        bases.recipe(str(tmp_path / "d.npy"))


def test_part_of_the_axes_is_that_part_of_the_units() -> None:
    maps = maps_of(1, (1, 2, 2, 6), spread=0.2)
    found = bases.Basis(np.eye(6)[[4, 1]])(maps)
    np.testing.assert_allclose(found, maps[..., [4, 1]], rtol=1e-5)
