"""The reader: published rules read back, every kind of bad table refused with file and row."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import broden

from . import makers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return makers.small(tmp_path / "set")


def test_tables_are_read_by_the_published_rules(folder: Path) -> None:
    data = broden.open(folder)
    assert data.name == "set"
    assert len(data) == 6
    assert [(c.index, c.name, c.count) for c in data.categories] == [
        (0, "color", 2),
        (1, "object", 2),
        (2, "part", 1),
        (3, "scene", 1),
    ]
    assert data.image_size == (16, 16)
    assert data.label_size == (8, 8)
    assert len(data.labels) == 6
    assert data.labels.names == (None, "red-c", "blue-c", "car", "door", "street-s")
    # door covers 0.3 as object and as part: the later row of category.csv wins
    assert data.labels.primary.tolist() == [-1, 0, 0, 1, 2, 3]
    assert data.labels.primary.dtype == np.int16
    assert data.labels[4].primary == "part"
    assert data.labels[4].categories == {"object": 1, "part": 2}
    assert data.labels[3].synonyms == ("auto", "motorcar")
    assert data.labels[0] is None
    assert data.labels.find("MOTORCAR") is data.labels[3]
    assert data.labels.find("nothing") is None
    row = data.rows[1]
    assert (row.position, row.image, row.split, row.scalars) == (1, "s/i1.jpg", "train", ())
    assert [tuple(p) for p in row.planes] == [
        (0, "s/i1_color.png"),
        (1, "s/i1_object.png"),
        (2, "s/i1_part_1.png"),
        (2, "s/i1_part_2.png"),
    ]


def test_pixels_and_planes_are_read_as_stored(folder: Path) -> None:
    data = broden.open(folder)
    for position, row in enumerate(data.rows):
        with Image.open(folder / "images" / row.image) as image:
            assert (data.read_image(position) == np.asarray(image.convert("RGB"))).all()
            squashed = np.asarray(image.convert("RGB").resize((5, 7), Image.Resampling.BILINEAR))
        assert (data.read_image(position, (7, 5)) == squashed).all()
        labels = data.read_labels(position)
        assert labels.planes.dtype == np.uint16
        assert labels.planes.shape == (len(row.planes), 8, 8)
        for plane, (_, name) in zip(labels.planes, row.planes, strict=True):
            with Image.open(folder / "images" / name) as image:
                rgb = np.asarray(image).astype(int)
            assert (plane == rgb[..., 0] + 256 * rgb[..., 1]).all()
        assert labels.scalars.dtype == np.int64
        assert labels.scalars.tolist() == [s.number for s in row.scalars]


def test_split_and_limit_narrow_in_file_order(folder: Path) -> None:
    assert [r.image for r in broden.open(folder, split="train").rows] == [f"s/i{n}.jpg" for n in (1, 2, 4, 5)]
    narrowed = broden.open(folder, split="train", limit=3)
    assert [(r.position, r.line) for r in narrowed.rows] == [(0, 3), (1, 4), (2, 6)]
    assert narrowed.fingerprint == broden.open(folder).fingerprint
    with pytest.raises(broden.DataError, match="no image of split 'test'"):
        broden.open(folder, split="test")
    with pytest.raises(broden.DataError, match="limit"):
        broden.open(folder, limit=0)


def test_fingerprint_follows_content(folder: Path, tmp_path: Path) -> None:
    before = broden.open(folder).fingerprint
    twin = makers.small(tmp_path / "elsewhere" / "other name")
    assert broden.open(twin).fingerprint == before
    file = twin / "images/s/i3_color.png"
    file.write_bytes(makers.plane(np.ones((8, 8), int)))
    assert broden.open(twin).fingerprint != before
    file.unlink()
    assert broden.open(twin).fingerprint != before


def _without(name: str, text: str) -> dict[str, str]:
    whole = {**makers.TABLES, "index.csv": makers.HEADER + "".join(makers.ROWS)}[name]
    assert text in whole
    return {name: whole}


def _swap(name: str, old: str, new: str) -> dict[str, str | bytes | None]:
    return {name: _without(name, old)[name].replace(old, new, 1)}


BAD: list[tuple[dict[str, str | bytes | None], str, int | None, str]] = [
    *[({name: None}, name, None, "no such file") for name in ("category.csv", "label.csv", "index.csv", "c_part.csv")],
    ({"index.csv": ""}, "index.csv", None, "empty"),
    ({"index.csv": makers.HEADER}, "index.csv", None, "no images"),
    ({"category.csv": "name,first,last,count,frequency\n"}, "category.csv", None, "no categories"),
    (_swap("index.csv", ",scene", ",scenery"), "index.csv", 1, "no column 'scene'"),
    (_swap("label.csv", "coverage", "cover"), "label.csv", 1, "no column 'coverage'"),
    (_swap("c_color.csv", "coverage", "cover"), "c_color.csv", 1, "no column 'coverage'"),
    (_swap("index.csv", "s/i4.jpg", "s/i0.jpg"), "index.csv", 6, "row 2 already"),
    (_swap("label.csv", "\n4,door", "\n3,door"), "label.csv", 5, "row 4 already"),
    (_swap("label.csv", "door", "car"), "label.csv", 5, "label 3 already"),
    (_swap("category.csv", "part", "object"), "category.csv", 4, "row 3 already"),
    (_swap("index.csv", "16,16,8,8,,,,", "16,16,8,9,,,,"), "index.csv", 4, "all rows must agree"),
    (_swap("index.csv", "16,16,8,8,,,,", "16,-1,8,8,,,,"), "index.csv", 4, "column iw is '-1'"),
    (_swap("index.csv", "8,8,,,,", "8,8,,,,99"), "index.csv", 4, "label 99, which is not in label.csv"),
    (_swap("index.csv", "8,8,,,,", "8,8,,,,99999999999999999999"), "index.csv", 4, "not in label.csv"),
    (_swap("index.csv", "8,8,,,,", "8,8,,,"), "index.csv", 4, "9 cells; expected 10"),
    (_swap("index.csv", "s/i3_color.png", "../../x.png"), "index.csv", 5, "could leave the set"),
    (_swap("index.csv", "s/i3.jpg", "/etc/passwd"), "index.csv", 5, "absolute"),
    (_swap("index.csv", "s/i3.jpg", "s\\i3.jpg"), "index.csv", 5, "backslash"),
    (_swap("label.csv", "object(3)", "thing(3)"), "label.csv", 4, "not in category.csv"),
    (_swap("label.csv", "object(3)", "object"), "label.csv", 4, "expected name"),
    (_swap("label.csv", "\n3,", "\n65536,"), "label.csv", 4, "1..65535"),
    (_swap("label.csv", "\n3,", "\n0,"), "label.csv", 4, "1..65535"),
    (_swap("c_object.csv", ",3,car", ",77,car"), "c_object.csv", None, "label 77 is not in label.csv"),
    (_swap("c_object.csv", "0.5", "nan"), "c_object.csv", 2, "column coverage"),
    ({"label.csv": makers.TABLES["label.csv"].encode().replace(b"car", b"caf\xe9")}, "label.csv", 4, "not UTF-8"),
    ({"index.csv": (makers.HEADER + makers.ROWS[0]).encode("utf-16")}, "index.csv", 1, "not UTF-8"),
    (_swap("index.csv", "s/i3.jpg", '"s/i3.jpg'), "index.csv", 7, "not a CSV row"),
]


@pytest.mark.parametrize(("tables", "file", "row", "reason"), BAD)
def test_a_bad_table_is_refused_with_file_and_row(
    tmp_path: Path, tables: dict[str, str | bytes | None], file: str, row: int | None, reason: str
) -> None:
    makers.small(tmp_path / "set", tables)
    with pytest.raises(broden.DataError) as caught:
        broden.open(tmp_path / "set")
    assert (caught.value.file, caught.value.row) == (file, row)
    assert reason in caught.value.reason


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    text = "\ufeff" + (makers.HEADER + "".join(makers.ROWS)).replace("\n", "\r\n")
    data = broden.open(makers.small(tmp_path / "set", {"index.csv": text}))
    assert len(data) == 6
    assert data.rows[0].image == "s/i0.jpg"


def test_an_empty_category_is_defined(tmp_path: Path) -> None:
    tables = {
        "category.csv": makers.TABLES["category.csv"] + "texture,0,0,0,0\n",
        "index.csv": (makers.HEADER + "".join(makers.ROWS))
        .replace("\n", ",\n")
        .replace(",scene,\n", ",scene,texture\n"),
    }
    data = broden.open(makers.small(tmp_path / "set", tables))
    assert data.categories[4].count == 0
    assert not (data.labels.primary == 4).any()


def test_no_such_folder_and_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("nothing", "file"):
        with pytest.raises(broden.DataError, match="no such folder"):
            broden.open(tmp_path / name)


PLANE_FAULTS = {
    "unknown label": (makers.plane(np.full((8, 8), 6)), "label 6 is not in label.csv"),
    "label beyond the table": (makers.plane(np.full((8, 8), 65535)), "label 65535"),
    "wrong size": (makers.plane(np.ones((8, 9), int)), "8 x 9 pixels (height x width); expected 8 x 8"),
    "grey": (makers.png(np.ones((8, 8), np.uint8)), "expected 8-bit RGB"),
    "alpha": (makers.png(np.ones((8, 8, 4), np.uint8)), "expected 8-bit RGB"),
    "a JPEG": (makers.jpeg(0, (8, 8)), "expected PNG"),
    "cut": (makers.plane(np.ones((8, 8), int))[:-20], "cut short"),
    "empty": (b"", "empty"),
}


@pytest.mark.parametrize("kind", PLANE_FAULTS)
def test_a_bad_plane_sets_its_image_aside(folder: Path, kind: str) -> None:
    content, reason = PLANE_FAULTS[kind]
    (folder / "images/s/i3_object.png").write_bytes(content)
    data = broden.open(folder)
    with pytest.raises(broden.InputFault) as caught:
        data.read_labels(3)
    assert caught.value.file == "s/i3_object.png"
    assert reason in caught.value.reason
    data.read_labels(2)


def test_links_are_followed_inside_the_root_only(folder: Path, tmp_path: Path) -> None:
    images = folder / "images/s"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "i4.jpg").write_bytes(makers.jpeg(4))
    (images / "i3.jpg").unlink()
    (images / "i3.jpg").symlink_to("i5.jpg")
    (images / "i4.jpg").unlink()
    (images / "i4.jpg").symlink_to(outside / "i4.jpg")
    (images / "i5_color.png").unlink()
    os.mkfifo(images / "i5_color.png")
    data = broden.open(folder)
    assert (data.read_image(3) == data.read_image(5)).all()
    with pytest.raises(broden.InputFault, match="outside the set"):
        data.read_image(4)
    with pytest.raises(broden.InputFault, match="not a regular file"):
        data.read_labels(5)


def test_a_linked_folder_that_leads_outside_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "images").rename(tmp_path / "pictures")
    (folder / "images").symlink_to(tmp_path / "pictures")
    with pytest.raises(broden.InputFault, match="outside the set"):
        broden.open(folder).read_image(0)


def test_the_root_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert broden.open(tmp_path / "link").read_image(0).shape == (16, 16, 3)


def test_the_real_set_is_read_whole(shared_data: Path) -> None:
    data = broden.open(shared_data / "broden_real")
    assert len(data) == 1893
    assert len(data.labels.present()) == 151
    frequency = np.zeros(len(data.labels), np.int64)
    for batch in broden.stream(data, 64, images=False):
        assert batch.valid.all()
        assert batch.labels is not None
        for row, labels in zip(data.rows[batch.first :], batch.labels, strict=False):
            assert labels is not None
            kinds = {
                (p.category, n) for p, plane in zip(row.planes, labels.planes, strict=True) for n in np.unique(plane)
            }
            kinds |= {tuple(s) for s in row.scalars}
            for _, number in kinds:
                frequency[number] += number > 0
    assert frequency.tolist() == [0] + [label.frequency for label in data.labels.present()]
