from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dissect.errors import SpecError
from dissect.inversion import dream
from dissect.inversion.dream import Recipe
from dissect.inversion.network import Network
from dissect.inversion.pixels import InputRange
from dissect.inversion.sheet import read_image
from tests.dissect.inversion.nets import grey_photos, small

WIDE = InputRange((0.5,) * 3, (0.25,) * 3)


def test_one_step_changes_a_pixel_by_one_and_a_half_bytes_on_average() -> None:
    network = small((32, 32))
    z = grey_photos(2, network, low=0.4, high=0.6)
    moved = dream.dream(network, z, Recipe("two", octaves=1, iterations=1, jitter=5)).image
    torch.testing.assert_close((moved - z).abs().flatten(1).mean(1), torch.full((2,), 1.5), rtol=1e-4, atol=0)


def test_a_dream_of_a_linear_network_goes_along_its_gram_matrix() -> None:
    """d/dx ||W x||^2 / 2 = W'W x: the first step is exactly along it, k steps follow its power iteration."""
    torch.manual_seed(0)
    module = nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular", bias=False).double()
    network = Network(module, WIDE, (16, 16))
    z = grey_photos(1, network, low=0.45, high=0.55)
    recipe = Recipe("output", octaves=1, iterations=1, step=0.5, smallest=8)
    x = z
    for _ in range(3):
        x = x.detach().requires_grad_(True)
        code = module(WIDE.to_input(x))
        adjoint = torch.autograd.grad(code, x, code.detach())[0]
        x = x.detach() + 0.5 * adjoint / adjoint.abs().mean()
    made = z
    for _ in range(3):
        made = dream.dream(network, made, recipe).image
    torch.testing.assert_close(made, x, rtol=0, atol=1e-9)
    # A roll commutes with a circular convolution, so jitter changes nothing here.
    together = dream.dream(network, z, replace(recipe, iterations=3)).image
    torch.testing.assert_close(together, x, rtol=0, atol=1e-9)


def test_every_octave_raises_the_objective_and_the_picture_stays_legal() -> None:
    network = small((64, 64))
    z = grey_photos(1, network)
    made = dream.dream(network, z, Recipe("three", octaves=3, smallest=16, jitter=4))
    assert [(h, w) for h, w, _, _ in made.octaves] == [(32, 32), (45, 45), (64, 64)]
    assert all(last > first for _, _, first, last in made.octaves)
    low, high = network.pixels.limits(z)
    assert bool(((made.image >= low) & (made.image <= high)).all())
    assert made.image.shape == z.shape


def test_a_guide_pulls_towards_its_own_features() -> None:
    network = small((32, 32))
    z, other = grey_photos(1, network, seed=1), grey_photos(1, network, seed=7, low=0.0, high=1.0)
    recipe = Recipe("two", octaves=1, jitter=2)
    guide = dream.guide_places(network, "two", other)
    guided, free = dream.dream(network, z, recipe, guide).image, dream.dream(network, z, recipe).image
    assert not torch.equal(guided, free)

    def answer(image: torch.Tensor) -> float:
        places = network.codes(image, "two").flatten(2)
        return float(torch.einsum("bup,ug->bpg", places, guide).amax(2).sum())

    assert answer(guided) > answer(free)
    assert answer(guided) > answer(z)


def test_a_picture_or_an_octave_too_small_is_refused() -> None:
    network = small((32, 32))
    with pytest.raises(SpecError, match="too small for 4 octaves"):
        dream.dream(network, grey_photos(1, network), Recipe("two"))
    deep = Network(nn.Sequential(nn.Conv2d(3, 3, 9), nn.MaxPool2d(4)), WIDE, (32, 32))
    with pytest.raises(SpecError, match="does not take an octave of 11 x 11"):
        dream.dream(deep, grey_photos(1, deep), Recipe("1", octaves=4, smallest=4))
    with pytest.raises(SpecError, match="no map"):
        dream.guide_places(network, "out", grey_photos(1, network))
    with pytest.raises(SpecError, match="step > 0"):
        Recipe("two", step=0)


def test_the_zoom_is_the_known_zoom() -> None:
    """A smooth picture, enlarged by analysis."""
    share = 0.1

    def picture(x: np.ndarray, y: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(60 * np.sin(2 * x + 1) * np.cos(3 * y))[None, None].repeat(1, 3, 1, 1)

    centres = (np.arange(64) + 0.5) / 64 * 2 - 1
    gx, gy = np.meshgrid(centres, centres)
    found = dream.zoomed(picture(gx, gy), share)
    expected = picture(gx * (1 - share), gy * (1 - share))
    assert 10 * np.log10(120**2 / float((found - expected).square().mean())) > 55
    assert torch.equal(dream.zoomed(expected, 0.0), expected)


def film(folder: Path, frames: int, seed: int = 0) -> list[Path]:
    network = small((24, 24))
    recipe = Recipe("two", octaves=2, iterations=2, jitter=3, smallest=12, seed=seed)
    return dream.film(network, grey_photos(1, network), recipe, folder, frames, 0.08)


def test_a_film_resumes_frame_by_frame_to_the_same_bytes(tmp_path: Path) -> None:
    whole = film(tmp_path / "whole", 5)
    film(tmp_path / "cut", 2)
    (tmp_path / "cut" / "frame-00001.png").unlink()  # lost: made again from the one before
    cut = film(tmp_path / "cut", 5)
    assert [p.read_bytes() for p in whole] == [p.read_bytes() for p in cut]
    assert len({p.read_bytes() for p in whole}) == 5
    with pytest.raises(SpecError, match="another film"):
        film(tmp_path / "whole", 5, seed=1)


def test_each_frame_begins_at_the_zoom_of_the_stored_one_before(tmp_path: Path) -> None:
    network = small((24, 24))
    paths = film(tmp_path, 2)
    first = network.pixels.from_uint8(read_image(paths[0], None)[None])
    recipe = Recipe("two", octaves=2, iterations=2, jitter=3, smallest=12, seed=1)
    second = dream.dream(network, dream.zoomed(first, 0.08), recipe).image
    assert np.array_equal(network.pixels.to_uint8(second)[0], read_image(paths[1], None))


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_films_are_assembled(tmp_path: Path, ending: str) -> None:
    paths = film(tmp_path / "frames", 3)
    with Image.open(dream.assemble(paths, tmp_path / f"film.{ending}", rate=10)) as made:
        assert made.n_frames == 3
        assert made.size == (24, 24)


def test_an_mp4_needs_ffmpeg_and_other_endings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = film(tmp_path / "frames", 1)
    monkeypatch.setattr(dream.shutil, "which", lambda name: None)
    with pytest.raises(SpecError, match="ffmpeg, which is not installed"):
        dream.assemble(paths, tmp_path / "film.mp4")
    with pytest.raises(SpecError, match=r"found '.avi'"):
        dream.assemble(paths, tmp_path / "film.avi")
    with pytest.raises(SpecError, match="at least one frame"):
        film(tmp_path / "none", 0)
