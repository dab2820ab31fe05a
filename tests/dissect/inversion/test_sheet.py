from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from dissect.errors import SpaceError, SpecError
from dissect.inversion import sheet
from dissect.inversion.engine import Glance
from tests.dissect.inversion.nets import RANGE


def test_a_sheet_holds_every_picture_in_its_place() -> None:
    red, blue = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 1), np.uint8)
    red[..., 0] = 255
    made = sheet.contact_sheet([[red, blue], [None, red]], ["a", "b"], ["first", "second"], side=32)
    top, left, step = sheet.CAPTION + sheet.GAP, 96, 32 + sheet.GAP
    assert made[top + 16, left + 16].tolist() == [255, 0, 0]
    assert made[top + 16, left + step + 16].tolist() == [0, 0, 0]
    assert made[top + step + 16, left + 16].tolist() == list(sheet.PAPER)
    assert made[top + step + 16, left + step + 16].tolist() == [255, 0, 0]


def test_png_files_hold_the_pixels_and_are_put_in_place_whole(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    first = sheet.write_png(tmp_path / "a" / "x.png", image)
    assert np.array_equal(sheet.read_image(tmp_path / "a" / "x.png", None), image)
    assert sheet.write_png(tmp_path / "y.png", image) == first
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(SpaceError, match=r"cannot write x.png"):
        sheet.write_png(tmp_path / "file" / "x.png", image)


def test_images_are_found_read_upright_and_cut(tmp_path: Path) -> None:
    tall = np.zeros((40, 20, 3), np.uint8)
    tall[10:30] = 200
    Image.fromarray(tall).save(tmp_path / "b.png")
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(tall)))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "a.jpg", exif=exif, quality=100)
    (tmp_path / "notes.txt").write_text("no image")
    files = sheet.image_files([tmp_path])
    assert [f.name for f in files] == ["a.jpg", "b.png"]
    for file in files:
        assert sheet.read_image(file, (20, 20)).shape == (20, 20, 3)
        assert sheet.read_image(file, (20, 20)).mean() > 190
    assert sheet.read_image(files[1], (20, 20), planes=1).shape == (20, 20, 1)
    with pytest.raises(SpecError, match=r"notes.txt cannot be read as an image"):
        sheet.read_image(tmp_path / "notes.txt", None)
    with pytest.raises(SpecError, match="no image or folder"):
        sheet.image_files([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError, match="no images in"):
        sheet.image_files([tmp_path / "empty"])


def test_curves_are_valid_and_escaped() -> None:
    made = sheet.curves({"a<b": [0.1, 0.5, float("nan")]}, ["one", "two & three", "four"], "T<t>", "axis")
    tree = ElementTree.fromstring(made)
    circles = list(tree.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 2  # what is not a number has no point
    assert "two & three: 0.5" in "".join(circles[1].itertext())


def test_the_live_sheet_is_rewritten_and_always_at_the_end(tmp_path: Path) -> None:
    rendered = []

    def render() -> torch.Tensor:
        rendered.append(1)
        return torch.zeros(3, 3, 8, 8)

    live = sheet.LiveSheet(tmp_path / "live.png", RANGE, every=1000.0)
    for done in range(1, 6):
        live(Glance(done, 5, render, torch.zeros(3)))
    assert len(rendered) == 1  # not rendered when it is not shown
    assert (tmp_path / "live.png").exists()
    often = sheet.LiveSheet(tmp_path / "often.png", RANGE, every=0.0)
    often(Glance(1, 5, render, torch.zeros(3)))
    assert len(rendered) == 2
