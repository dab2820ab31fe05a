"""Upsampling, masks and outlines against slow definitions."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reports import images


def slow_upsample(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The definition, pixel by pixel, in double precision."""
    h, w = values.shape
    out = np.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            sy, sx = (y + 0.5) * h / size[0] - 0.5, (x + 0.5) * w / size[1] - 0.5
            y0, x0 = math.floor(sy), math.floor(sx)
            ty, tx = sy - y0, sx - x0
            at = lambda r, c: float(values[min(max(r, 0), h - 1), min(max(c, 0), w - 1)])  # noqa: E731
            top = at(y0, x0) * (1 - tx) + at(y0, x0 + 1) * tx
            bottom = at(y0 + 1, x0) * (1 - tx) + at(y0 + 1, x0 + 1) * tx
            out[y, x] = top * (1 - ty) + bottom * ty
    return out


@pytest.mark.parametrize(
    ("shape", "size"), [((7, 7), (28, 28)), ((3, 5), (17, 11)), ((1, 1), (4, 4)), ((8, 2), (3, 9))]
)
def test_upsample_is_the_definition(shape: tuple[int, int], size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert np.allclose(images.upsample(values, size), slow_upsample(values, size), atol=1e-5)


def test_mask_is_strict() -> None:
    values = np.full((2, 3, 3), 2.0, np.float32)
    assert not images.mask(values, np.array([2.0, 2.0]), (6, 6)).any()
    assert images.mask(values, np.array([1.9, 2.0]), (6, 6))[0].all()


def loops(path: str) -> list[list[tuple[int, int]]]:
    """Corners of every loop of a path; each must be closed."""
    out = []
    for text in filter(None, path.split("z")):
        match = re.fullmatch(r"M(\d+) (\d+)l([ \d-]+)", text)
        assert match, text
        x, y = int(match[1]), int(match[2])
        steps = [int(v) for v in re.findall(r"-?\d+", match[3])]
        points = [(x, y)]
        for dx, dy in zip(steps[::2], steps[1::2], strict=True):
            x, y = x + dx, y + dy
            points.append((x, y))
        assert points[0] == points[-1]
        out.append(points)
    return out


def filled(path: str, size: int) -> np.ndarray:
    """The path filled by the even-odd rule, sampled at pixel centres."""
    centres = (np.arange(size) + 0.5) * images.BOX / size + 1e-3
    inside = np.zeros((size, size), bool)
    for points in loops(path):
        for (x0, y0), (x1, y1) in zip(points, points[1:]):
            if y0 == y1:
                continue
            rows = (centres > min(y0, y1)) & (centres <= max(y0, y1))
            cross = x0 + (centres - y0) * (x1 - x0) / (y1 - y0)
            inside ^= rows[:, None] & (centres[None, :] > cross[:, None])
    return inside


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14),
               elements=st.floats(-3, 3, width=32)),
    st.floats(-3, 3, width=32),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_outline_fills_to_the_mask(values: np.ndarray, threshold: float) -> None:
    """Away from the mask's border, by more than a sample of the tracing grid, outline and mask agree everywhere."""
    (path,) = images.outlines(values[None], np.array([threshold], np.float32))
    fine = 112
    field = images.upsample(values, (fine, fine)) - np.float32(threshold)
    got = filled(path, fine)
    # One step of the tracing grid changes the interpolant by at most the steepest slope between neighbouring nodes.
    steep = max(np.abs(np.diff(values, axis=k)).max(initial=0) for k in (0, 1))
    grid = min(values.shape) * 2 if min(values.shape) < 28 else 28
    clear = np.abs(field) > 2 * steep * max(values.shape) / max(grid, 28) + 1e-3
    assert (got == (field > 0))[clear].all()


def test_outline_of_everything_and_nothing() -> None:
    ones = np.ones((2, 7, 7), np.float32)
    full, empty = images.outlines(ones, np.array([0.5, 1.0]))
    assert filled(full, 56).all()
    assert empty == ""
    assert images.outlines(np.zeros((0, 7, 7), np.float32), np.zeros(0)) == []


def test_nan_and_infinity_leave_a_hole() -> None:
    values = np.ones((1, 7, 7), np.float32)
    values[0, 3, 3] = np.nan
    (path,) = images.outlines(values, np.array([0.5]))
    assert not filled(path, 56)[28, 28]
    assert filled(path, 56)[4, 4]


def test_strip_moves_each_thumbnail_to_its_place() -> None:
    paths = ["M5 6l1 0 0 1-1-1z", "", "M250 0l1 1 0-1-1 0zM3 3l2 0 0 2-2-2z"]
    assert images.beside(paths) == "M5 6l1 0 0 1-1-1zM762 0l1 1 0-1-1 0zM515 3l2 0 0 2-2-2z"
    assert images.veil(paths).startswith("M0 0H768V256H0Z")


def test_published_rendering() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    inside = np.array([[True, False], [False, False]])
    assert images.dimmed(image, inside)[:, :, 0].tolist() == [[100, 20], [20, 20]]
