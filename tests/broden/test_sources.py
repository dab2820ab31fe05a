"""Every adapter, on a small copy of its layout: pixels of the built set equal the planted labels."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import broden
from broden.building import output_name
from broden.finding import mask_of
from broden.sources import KINDS, matlab, open_source
from broden.sources.coco import rle_counts, rle_mask
from broden.sources.sequence import SequenceSource
from broden.verifying import verify

from . import layouts, makers


def test_every_kind_has_a_layout() -> None:
    assert layouts.LAYOUTS.keys() == KINDS.keys()


def build(tmp_path: Path, source: Any, size: tuple[int, int], **options: Any) -> broden.Dataset:
    rules = broden.NameRules(modifiers=frozenset({"left", "right"}))
    spec = broden.BuildSpec([source], size, size, min_images=1, min_coverage=0.0, names=rules, **options)
    return broden.build(spec, tmp_path / "out", workers=1)


def assert_holds(data: broden.Dataset, source: str, truth: layouts.Truth) -> None:
    """Every image, concept and pixel of `truth`, and nothing else but colours."""
    by_name = {row.image: position for position, row in enumerate(data.rows)}
    assert by_name.keys() == {output_name(source, name) for name in truth}
    index = {category.name: category.index for category in data.categories}
    for name, categories in truth.items():
        position = by_name[output_name(source, name)]
        row, labels = data.rows[position], data.read_labels(position)
        shown: set[tuple[str, str]] = set()
        for (category, _), plane in zip(row.planes, labels.planes, strict=True):
            names = [data.labels.names[n] for n in np.unique(plane[plane > 0]).tolist()]
            shown |= {(data.categories[category].name, str(n)) for n in names}
        shown |= {(data.categories[c].name, str(data.labels.names[n])) for c, n in row.scalars}
        wanted = {(c, n) for c, masks in categories.items() for n in masks}
        assert {key for key in shown if key[0] != "color"} == wanted
        for category, kind in wanted:
            label = data.labels.find(kind)
            assert label is not None
            mask = mask_of(row, labels, label.number, index[category])
            assert (mask == categories[category][kind]).all(), (name, category, kind)


@pytest.mark.parametrize("kind", layouts.LAYOUTS)
def test_labels_arrive_pixel_for_pixel(tmp_path: Path, kind: str) -> None:
    maker, options = layouts.LAYOUTS[kind]
    truth = maker(tmp_path / "in")
    size = {"broden": (8, 8), "opensurfaces": (30, 40)}.get(kind, (layouts.H, layouts.W))
    table = {"kind": kind, "name": "src", "path": str(tmp_path / "in"), **options}
    data = build(tmp_path, table, size)
    assert_holds(data, "src", truth)
    assert verify(data.root).faults == []
    assert verify(data.root).notes == []


@pytest.mark.parametrize("kind", [kind for kind in layouts.LAYOUTS if kind not in ("tar", "parquet", "dtd")])
def test_a_missing_or_wrong_mask_sets_its_image_aside(tmp_path: Path, kind: str) -> None:
    maker, options = layouts.LAYOUTS[kind]
    truth = maker(tmp_path / "in")
    masks = [
        path
        for path in sorted((tmp_path / "in").rglob("*"))
        if path.suffix in (".png", ".mat") and "index" not in path.name and "StillsRaw" not in str(path)
        and "leftImg" not in str(path)
    ]  # fmt: skip
    pictures = sorted(path for path in (tmp_path / "in").rglob("*.jpg"))
    hurt = masks[-1] if masks else pictures[-1]
    hurt.write_bytes(hurt.read_bytes()[:60])
    table = {"kind": kind, "name": "src", "path": str(tmp_path / "in"), **options}
    if len(truth) == 1:
        with pytest.raises(broden.DataError):
            build(tmp_path, table, (layouts.H, layouts.W))
        return
    data = build(tmp_path, table, (16, 16))
    assert len(data) == len(truth) - 1
    faults = (data.root / "faults.csv").read_text().splitlines()
    assert len(faults) == 2
    assert hurt.name in faults[1] or hurt.parent.name in faults[1]


@pytest.mark.parametrize("kind", layouts.LAYOUTS)
def test_an_empty_folder_or_an_unknown_option_is_a_clear_error(tmp_path: Path, kind: str) -> None:
    (tmp_path / "empty").mkdir()
    table = {"kind": kind, "name": "s", "path": str(tmp_path / "empty")}
    with pytest.raises(broden.DataError):
        build(tmp_path, table, (8, 8))
    maker, options = layouts.LAYOUTS[kind]
    maker(tmp_path / "in")
    with pytest.raises(broden.DataError, match="no option 'colour'"):
        open_source({"kind": kind, "name": "s", "path": str(tmp_path / "in"), "colour": 1, **options})


def test_any_python_sequence(tmp_path: Path) -> None:
    mask = layouts.blocks(0, [0, 1, 2]).astype(np.int32)
    pixels = np.random.default_rng(0).integers(0, 256, (layouts.H, layouts.W, 3), np.uint8)
    items = [
        (pixels, {"object": mask, "scene": "street", "texture": ["dotted", "lined"]}),
        (pixels, {"object": mask * 0}),
    ]
    source = SequenceSource("mine", items, {"object": {1: "car", 2: ("tree", "plant")}})
    data = build(tmp_path, source, (layouts.H, layouts.W))
    truth = {"object": layouts.truth(mask, {1: "car", 2: "tree"}), "scene": {"street-s": True}}
    assert_holds(data, "mine", {"00000000": {**truth, "texture": {"dotted": True, "lined": True}}, "00000001": {}})
    tree = data.labels.find("plant")
    assert tree is not None
    assert tree.synonyms == ("plant",)


def test_pairs_of_pillow_pictures_as_torchvision_gives_them(tmp_path: Path) -> None:
    layouts.voc(tmp_path / "in")
    truth = {}
    items = []
    for seed, name in enumerate(("2007_000001", "2007_000002")):
        picture = Image.open(tmp_path / f"in/JPEGImages/{name}.jpg")
        items.append((picture, Image.open(tmp_path / f"in/SegmentationClass/{name}.png")))
        numbers = layouts.blocks(seed, [0, 1, 15, 255])
        truth[f"{seed:08d}"] = {"object": layouts.truth(numbers, {1: "airplane", 15: "person"})}
    source = SequenceSource("voc", items, {"object": {1: "airplane", 15: "person"}})
    assert_holds(build(tmp_path, source, (layouts.H, layouts.W)), "voc", truth)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (3, "not a pair"),
        ((np.zeros((4, 4)), {}), "expected uint8"),
        ((np.zeros((4, 4, 3), np.uint8), {"part": np.zeros((4, 4), int)}), "no names"),
        ((np.zeros((4, 4, 3), np.uint8), {"object": np.zeros((4, 4), float)}), "expected integers"),
        ((np.zeros((4, 4, 3), np.uint8), {"object": np.full((4, 4), 9)}), "label 9 has no name"),
        ((np.zeros((4, 4, 3), np.uint8), {"object": np.zeros((4, 5), int)}), "4 x 5 pixels; its picture has 4 x 4"),
    ],
)
def test_wrong_items_are_set_aside_with_a_reason(tmp_path: Path, item: Any, reason: str) -> None:
    good = (np.zeros((4, 4, 3), np.uint8), {"object": np.ones((4, 4), int)})
    data = build(tmp_path, SequenceSource("s", [item, good], {"object": {1: "car"}}), (8, 8))
    assert len(data) == 1
    assert reason in (data.root / "faults.csv").read_text()


TAR_MEMBERS = ["../x.jpg", "/etc/x.jpg", "x.pkl", "x.pyd", "a\\..\\x.jpg", "x.unknown.png"]


@pytest.mark.parametrize("name", TAR_MEMBERS)
def test_hostile_tar_members_are_refused(tmp_path: Path, name: str) -> None:
    layouts.tar(tmp_path / "in")
    with tarfile.open(tmp_path / "in/shard-000.tar", "a") as archive:
        info = tarfile.TarInfo(name)
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises(broden.DataError):
        open_source({"kind": "tar", "name": "s", "path": str(tmp_path / "in")})


def test_a_link_in_a_tar_is_refused(tmp_path: Path) -> None:
    layouts.tar(tmp_path / "in")
    with tarfile.open(tmp_path / "in/shard-000.tar", "a") as archive:
        info = tarfile.TarInfo("x/0003.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(broden.DataError, match="not a plain file"):
        open_source({"kind": "tar", "name": "s", "path": str(tmp_path / "in")})


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32))
def test_rle_round_trip(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    counts = layouts.counts_of(mask)
    assert rle_counts(layouts.rle_text(counts)) == counts
    assert (rle_mask(counts, height, width) == mask).all()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_an_rle_or_an_error(text: str) -> None:
    try:
        rle_mask(rle_counts(text), 3, 3)
    except ValueError:
        pass


def test_matlab_values_come_back() -> None:
    grid = np.arange(12, dtype=np.uint16).reshape(3, 4)
    for compress in (True, False):
        found = matlab.load(layouts.mat({"a": grid, "name": "text", "cell": ["x", "long text"]}, compress))
        assert (found["a"] == grid).all()
        assert found["name"] == "text"
        assert matlab.strings(found["cell"]) == ["x", "long text"]


def test_damaged_matlab_files_are_an_error_or_a_value() -> None:
    whole = layouts.mat({"a": {"struct": [{"x": "text", "y": np.ones((3, 3))}]}, "b": ["q"]}, compress=False)
    rng = np.random.default_rng(0)
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(128, len(data)))] = int(rng.integers(256))
        try:
            matlab.load(bytes(data[: int(rng.integers(130, len(data) + 1))]))
        except matlab.MatlabError:
            pass


def test_a_turned_photo_follows_its_mask(tmp_path: Path) -> None:
    """The file is stored lying; the annotator saw it standing."""
    layouts.put(tmp_path / "in/labels.csv", "category,number,name\nobject,1,car\n")
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees: the left edge comes to the top
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", exif=exif, quality=95)
    layouts.put(tmp_path / "in/images/1.jpg", out.getvalue())
    mask = np.zeros((40, 20), np.uint8)
    mask[:10] = 1
    layouts.put(tmp_path / "in/masks/object/1.png", makers.png(mask))
    data = build(tmp_path, {"kind": "folder", "name": "s", "path": str(tmp_path / "in")}, (40, 20))
    red = data.read_image(0)[..., 0] > 128
    assert (red == (mask > 0)).mean() > 0.97
