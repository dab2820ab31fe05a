"""The gallery page: every picture that is there, words for those that are not, nothing from outside, escaped names."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

import reports
from reports.gallery import SHOWN, GalleryEntry, GalleryPage, GalleryPicture
from reports.pages import Fact


def png(side: int = 300) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def film() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), (k * 40, 0, 0)) for k in range(4)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def write(out: Path, *entries: GalleryEntry) -> str:
    return reports.write_gallery(GalleryPage("Pictures", entries), out).read_text(encoding="utf-8")


def test_pictures_are_shrunk_films_kept_and_missing_files_said(tmp_path: Path) -> None:
    entry = GalleryEntry(
        "s1", "Maximum <b>impulses</b>", "Lead.", (Fact("seed", "7"),),
        (GalleryPicture("fall.webp", "the fall", read=film),),
        (GalleryPicture("l/a.png", "unit 3", "answer 2", png), GalleryPicture("gone.png", "unit 4"),
         GalleryPicture("torn.png", "unit 5", read=lambda: b"no picture")),
    )  # fmt: skip
    html = write(tmp_path, entry)
    folder = tmp_path / "_gallery"
    assert Image.open(folder / "s1" / "l-a.webp").size == (224, 224)
    assert Image.open(folder / "s1" / "fall.webp").n_frames == 4
    assert "Maximum &lt;b&gt;impulses" in html
    assert html.count("the file is gone") == 2
    assert "http" not in html.replace("http-equiv", "")
    for name in ("report.css", "gallery.css"):
        assert (folder / name).is_file()


def test_only_so_many_single_pictures_and_the_page_says_so(tmp_path: Path) -> None:
    many = tuple(GalleryPicture(f"{k}.png", f"unit {k}", read=lambda: png(8)) for k in range(SHOWN + 5))
    html = write(tmp_path, GalleryEntry("s1", "Many", pictures=many))
    assert f"{SHOWN} of {SHOWN + 5}" in html
    assert len(list((tmp_path / "_gallery" / "s1").iterdir())) == SHOWN


def test_an_empty_gallery_says_how_to_fill_it(tmp_path: Path) -> None:
    assert "dissect maximize" in write(tmp_path)
