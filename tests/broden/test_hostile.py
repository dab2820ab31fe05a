"""A fixed part of the two campaigns: damaged files, and names that try to leave the set."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

import broden
from broden import decode

from . import campaign_paths, campaign_verify, damage, foreign, makers, payloads


def test_verify_finds_exactly_the_damaged_files(tmp_path: Path) -> None:
    data = broden.synth(tmp_path / "set", images=150, size=64)
    figures = campaign_verify.judge(data.root, 130, workers=1)
    assert {key: figures[key] for key in campaign_verify.BAD} == {key: [] for key in campaign_verify.BAD}


def test_nothing_outside_is_opened(tmp_path: Path) -> None:
    figures = campaign_paths.run(tmp_path, step=7)
    assert figures["outside"] == []
    assert figures["trials"] > 100


def test_there_are_three_hundred_payloads() -> None:
    assert len(payloads.text_payloads("/x")) + len(payloads.link_payloads("/x")) >= 300


def test_the_hook_would_see_an_open_outside(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "secret").write_text("x")
    with campaign_paths.watch():
        (tmp_path / "secret").read_text()
    assert campaign_paths.outside_opens(tmp_path / "set") == [str(tmp_path / "secret")]


@pytest.mark.parametrize("kind", damage.ODD_IMAGES)
def test_odd_pictures_are_read_by_the_stated_rule(kind: str) -> None:
    import numpy as np

    data = damage.ODD_IMAGES[kind](b"", (20, 30), np.random.default_rng(3))
    pixels = decode.pixels(data, (20, 30))
    assert pixels.shape == (20, 30, 3)
    with Image.open(io.BytesIO(data)) as image:
        if kind == "16-bit grey":
            assert (pixels == (np.asarray(image) >> 8)[..., None]).all()
        else:
            assert (pixels == np.asarray(image.convert("RGB"))).all()


def test_a_swapped_file_is_not_followed(tmp_path: Path) -> None:
    """Between judging and opening somebody puts a link in place: the open itself refuses it."""
    import os

    from broden import paths

    root = makers.small(tmp_path / "set")
    (tmp_path / "secret").write_bytes(b"secret")
    victim = root / "images/s/i0.jpg"
    judged = os.lstat(victim)
    victim.unlink()
    victim.symlink_to(tmp_path / "secret")
    inside = paths.Root(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths.os, "lstat", lambda path: judged)
        with pytest.raises(broden.InputFault):
            inside.read("images/s/i0.jpg")


def test_no_kind_of_file_beyond_the_four_is_read() -> None:
    files = foreign.files()
    assert len(files) >= 140
    with foreign.watched() as asked:
        assert [name for name, data in files.items() if not foreign.refused(data)] == []
        assert asked == []
        Image.open(io.BytesIO(files["Pillow's GIF"]))
        assert asked == ["GIF"]  # it would have been seen


@pytest.mark.parametrize("kind", decode.FORMATS)
def test_what_stands_behind_a_picture_is_not_looked_at(kind: str) -> None:
    """Two kinds in one file: the first is what it is."""
    data = foreign._saved(kind)
    assert data is not None
    for tail in (b"PK\3\4", b"<script>alert(1)</script>", b"%PDF-1.7"):
        try:
            assert (decode.pixels(data + tail * 50) == decode.pixels(data)).all()
        except decode.DecodeError:
            pass
