"""Packs: equal to the folder in everything, smaller, checked, resumable, and never believed when damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import broden
from broden import packed, packing
from broden.verifying import verify

from . import makers


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> broden.Dataset:
    return broden.synth(tmp_path_factory.mktemp("pack") / "set", images=90, size=96)


@pytest.fixture(scope="module")
def pack(files: broden.Dataset, tmp_path_factory: pytest.TempPathFactory) -> packed.PackedDataset:
    return packing.pack(files.root, tmp_path_factory.mktemp("pack") / "packed", shard_images=32)


def assert_same(one: broden.Dataset, other: broden.Dataset, size: int | None = None) -> None:
    assert one.fingerprint == other.fingerprint
    assert [row[:5] for row in one.rows] == [row[:5] for row in other.rows]
    for left, right in zip(broden.stream(one, 16, size=size), broden.stream(other, 16, size=size), strict=True):
        assert left.faults == right.faults
        assert (left.valid == right.valid).all()
        assert np.array_equal(left.images, right.images)
        for a, b in zip(left.labels or (), right.labels or (), strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert np.array_equal(a.planes, b.planes)
                assert a.planes.dtype == b.planes.dtype
                assert np.array_equal(a.scalars, b.scalars)


@pytest.mark.parametrize("size", [None, 40])
def test_a_pack_reads_as_its_folder(files: broden.Dataset, pack: broden.Dataset, size: int | None) -> None:
    assert_same(files, pack, size)
    assert_same(broden.open(files.root, "val"), broden.open(pack.root, "val"), size)
    assert_same(broden.open(files.root, limit=41), broden.open(pack.root, limit=41), size)


def test_pixels_too(files: broden.Dataset, tmp_path: Path) -> None:
    packing.pack(files.root, tmp_path / "p", pixels=True, shard_images=40)
    assert_same(files, broden.open(tmp_path / "p"))
    assert_same(files, broden.open(tmp_path / "p"), 40)


def test_without_the_quick_decoder(files: broden.Dataset, pack: packed.PackedDataset) -> None:
    slow = packed.PackedDataset(packed.Root(pack.root))
    slow._decoder = None
    assert_same(files, slow)


def test_a_decoder_that_disagrees_is_not_used(files: broden.Dataset, pack: packed.PackedDataset) -> None:
    other = packed.PackedDataset(packed.Root(pack.root))
    other._decoder = lambda data: np.zeros((96, 96, 3), np.uint8)
    assert_same(files, other)


def test_smaller_than_the_files(files: broden.Dataset, pack: broden.Dataset) -> None:
    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    assert size(pack.root) < size(files.root)


def test_the_way_back_is_exact(files: broden.Dataset, pack: broden.Dataset, tmp_path: Path) -> None:
    assert packing.unpack(pack.root, tmp_path / "back") == 0
    back = broden.open(tmp_path / "back")
    for name in ("index.csv", "label.csv", "category.csv", "c_part.csv", "facts.csv"):
        assert (back.root / name).read_bytes() == (files.root / name).read_bytes()
    for position, row in enumerate(files.rows):
        assert (back.root / "images" / row.image).read_bytes() == (files.root / "images" / row.image).read_bytes()
        assert np.array_equal(back.read_labels(position).planes, files.read_labels(position).planes)
    assert verify(back.root).faults == []


def test_broken_files_stay_broken_in_place(tmp_path: Path) -> None:
    root = makers.small(tmp_path / "set")
    (root / "images/s/i3.jpg").write_bytes(b"no picture")
    (root / "images/s/i4_object.png").unlink()
    packing.pack(root, tmp_path / "pack", shard_images=4)
    assert_same(broden.open(root), broden.open(tmp_path / "pack"))
    report = verify(tmp_path / "pack")
    assert [(f.file, f.row) for f in report.faults] == [("s/i3.jpg", 5), ("s/i4_object.png", 6)]
    assert report.excluded == 2
    assert packing.unpack(tmp_path / "pack", tmp_path / "back") == 2


def test_packing_goes_on_where_it_stopped(files: broden.Dataset, pack: broden.Dataset, tmp_path: Path) -> None:
    out = tmp_path / "p"

    class Stop(Exception):
        pass

    def stop(phase: str, done: int, total: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        packing.pack(files.root, out, shard_images=32, workers=1, progress=stop)
    assert not (out / "pack.json").exists()
    with pytest.raises(broden.DataError):
        broden.open(out)
    first = (out / packing.shard_name(0)).stat()
    (out / "shard-00001.partial").write_bytes(b"half")
    packing.pack(files.root, out, shard_images=32, workers=1)
    assert (out / packing.shard_name(0)).stat().st_mtime_ns == first.st_mtime_ns
    for path in sorted(pack.root.iterdir()):
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in pack.root.iterdir())


def test_another_pack_is_not_continued(files: broden.Dataset, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "packing.json").write_text("{}")
    with pytest.raises(broden.DataError, match="not the beginning of this pack"):
        packing.pack(files.root, tmp_path / "p")
    with pytest.raises(broden.DataError, match="inside the set"):
        packing.pack(files.root, files.root / "p")


def test_every_flipped_byte_is_noticed(pack: broden.Dataset, tmp_path: Path) -> None:
    """One byte anywhere in a shard, a table or the header: verify finds it, and no wrong pixel is ever read."""
    good = [(pack.read_image(i), pack.read_labels(i).planes) for i in range(len(pack))]
    rng = np.random.default_rng(5)
    names = sorted(path.name for path in pack.root.iterdir())
    for turn in range(24):
        folder = tmp_path / str(turn)
        shutil.copytree(pack.root, folder)
        path = folder / names[turn % len(names)]
        content = bytearray(path.read_bytes())
        place = int(rng.integers(len(content)))
        content[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        assert verify(folder, workers=1).faults, (path.name, place)
        if path.suffix != ".broden":
            continue
        data = broden.open(folder)
        for position, (image, planes) in enumerate(good):
            try:
                assert np.array_equal(data.read_image(position), image)
                assert np.array_equal(data.read_labels(position).planes, planes)
            except broden.InputFault:
                pass


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"images": 5}, {"shards": []}, {"shards": [{"file": "x"}]}, {"shards": 3}, {"tables": []},
        {"shards": [{"file": "../x", "first": 0, "images": 90, "bytes": 1, "sha256": ""}]},
    ],
)  # fmt: skip
def test_a_wrong_header_is_refused(pack: broden.Dataset, tmp_path: Path, change: dict[str, object]) -> None:
    shutil.copytree(pack.root, tmp_path / "p")
    header = {**json.loads((pack.root / "pack.json").read_text()), **change}
    del header["digest"]
    header["digest"] = packed.header_digest(header)
    (tmp_path / "p" / "pack.json").write_text(json.dumps(header))
    with pytest.raises((broden.DataError, broden.InputFault)):
        broden.open(tmp_path / "p").read_image(0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 4), st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3, 255, 257, 65536]), st.integers(0)
)
def test_planes_round_trip(count: int, height: int, width: int, spread: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    planes = np.repeat(rng.integers(0, spread, (count, height, (width + 2) // 3)), 3, axis=2)[..., :width]
    planes = planes.astype(np.uint16)
    decoded, values = packed.decode_planes(memoryview(packed.encode_planes(planes)), count, (height, width))
    assert np.array_equal(decoded, planes)
    assert set(np.unique(planes).tolist()) <= set(values.tolist())


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 3))
def test_hostile_planes_never_decode_to_the_wrong_shape(blob: bytes, count: int) -> None:
    import zlib

    try:
        decoded, _ = packed.decode_planes(memoryview(blob), count, (5, 6))
    except (ValueError, zlib.error):
        return
    assert decoded.shape == (count, 5, 6)


def test_a_deflate_bomb_stops_at_the_expected_size() -> None:
    import zlib

    bomb = packed.PLANES_HEAD.pack(0, 0) + zlib.compress(bytes(50_000_000))
    with pytest.raises(ValueError, match="another size"):
        packed.decode_planes(memoryview(bomb), 1, (8, 8))
