import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dissect.errors import SpecError
from dissect.inversion.pixels import InputRange
from tests.dissect.inversion.nets import RANGE


def all_bytes() -> np.ndarray:
    return np.repeat(np.arange(256, dtype=np.uint8)[None, :, None, None], 3, 3)


@given(st.floats(-2, 0), st.floats(0.5, 300), st.floats(0.1, 0.9))
@settings(deadline=None)
def test_every_byte_survives_any_range(low: float, span: float, middle: float) -> None:
    pixels = InputRange((low + span * middle,) * 3, (span / 4,) * 3, low, low + span)
    assert np.array_equal(pixels.to_uint8(pixels.from_uint8(all_bytes())), all_bytes())


def test_the_module_receives_what_preprocessing_promises() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    fed = RANGE.to_input(RANGE.from_uint8(images, torch.float64)).permute(0, 2, 3, 1).numpy()
    expected = (images / 255 - np.array(RANGE.mean)) / np.array(RANGE.std)
    np.testing.assert_allclose(fed, expected, atol=1e-12)


def test_mean_grey_is_zero_and_limits_are_the_legal_range() -> None:
    z = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    low, high = RANGE.limits(z)
    assert torch.equal(RANGE.to_pixels(z).flatten(), torch.tensor(RANGE.mean, dtype=torch.float64))
    torch.testing.assert_close(RANGE.to_pixels(low), torch.zeros_like(low))
    torch.testing.assert_close(RANGE.to_pixels(high), torch.ones_like(high))


def test_an_unknown_range_is_refused_and_not_guessed() -> None:
    with pytest.raises(SpecError, match="unknown: give --mean and --std"):
        InputRange.of(None)


@pytest.mark.parametrize(
    "wrong", [((0.5,), (0.0,)), ((0.5, 0.5), (1.0,)), ((), ()), ((float("nan"),), (1.0,)), ((0.5,), (1.0,), 1.0, 0.0)]
)
def test_an_impossible_range_is_refused(wrong: tuple) -> None:
    with pytest.raises(SpecError, match="input range"):
        InputRange(*wrong)


def test_images_of_another_kind_are_refused() -> None:
    with pytest.raises(SpecError, match="expected uint8"):
        RANGE.from_uint8(np.zeros((1, 4, 4, 3), np.float32))
    with pytest.raises(SpecError, match=r"found uint8 \[1, 4, 4, 1\]"):
        RANGE.from_uint8(np.zeros((1, 4, 4, 1), np.uint8))
