"""Sheets are put together from pieces that were coded apart: they show what each thumbnail shows by itself."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reports import images
from reports.sheets import Crops
from tests.reports import synthetic


def brightness(file: bytes) -> np.ndarray:
    """The luminance plane as it is coded, uint8 [h, w]: colours are smoothed over borders, brightness is not."""
    with Image.open(io.BytesIO(file)) as picture:
        picture.draft("L", picture.size)
        return np.asarray(picture)


@given(
    st.integers(1, 6), st.integers(1, 5), st.sampled_from([16, 48, 112]), st.sampled_from([30, 50, 70, 95]),
    st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_sheet_shows_every_thumbnail_exactly(rows: int, columns: int, px: int, quality: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = synthetic.Pictures(30)
    for position in range(0, 30, 3):  # the hardest content: noise, whose coded bytes take every value
        source.thumbs[position, px] = rng.integers(0, 256, (px, px, 3)).astype(np.uint8)
    crops = Crops(source, px, quality)
    places = rng.integers(0, 30, (rows, columns)).tolist()
    found = [[crops.find(place) for place in row] for row in places]
    sheet = brightness(crops.sheet([[piece for piece in row if piece] for row in found]))
    assert sheet.shape == (rows * px, columns * px)
    for r, row in enumerate(places):
        for c, place in enumerate(row):
            alone = io.BytesIO()
            Image.fromarray(source.thumb(place, px)).save(alone, "JPEG", quality=quality, subsampling="4:2:0")
            tile = sheet[r * px : (r + 1) * px, c * px : (c + 1) * px]
            assert np.array_equal(tile, brightness(alone.getvalue()))


def test_colours_keep_to_their_thumbnail() -> None:
    """All but the last pixels before a border, where a decoder smooths colours."""
    source = synthetic.Pictures()
    for place, colour in enumerate([(230, 20, 20), (20, 200, 40), (30, 40, 220)]):
        source.thumbs[place, 48] = np.full((48, 48, 3), colour, np.uint8)
    crops = Crops(source, 48, 70)
    with Image.open(io.BytesIO(crops.sheet([[crops.find(k) or crops.blank for k in range(3)]]))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    for place in range(3):
        far = np.abs(pixels[:, 48 * place + 2 : 48 * place + 46] - source.thumbs[place, 48][0, 0])
        assert far.max() <= 8


def test_an_image_is_read_once_and_a_missing_one_is_none() -> None:
    asked: list[int] = []

    class Source(synthetic.Pictures):
        def thumb(self, position: int, px: int) -> np.ndarray | None:
            asked.append(position)
            return super().thumb(position, px)

    crops = Crops(Source(absent=[7]), 48, 70)
    for _ in range(3):
        assert crops.find(5) == crops.find(5)
        assert crops.find(7) is None
    assert asked == [5, 7]
    shown = brightness(crops.sheet([[crops.absent, crops.blank]]))
    assert np.abs(shown[:, :48].astype(int) - images.missing(48)[..., 0]).mean() < 6


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.sheets.KEPT_BYTES", 4000)
    crops = Crops(synthetic.Pictures(), 48, 70)
    for position in range(50):
        crops.find(position)
    assert 0 < len(crops._kept) < 10


def test_a_size_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="blocks of 16 pixels; 50"):
        Crops(synthetic.Pictures(), 50, 70)
