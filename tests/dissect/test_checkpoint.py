"""State files: read into place, checked before the first array is used, and refused where they do not fit."""

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dissect import checkpoint

ARRAYS = {
    "a/plain": np.arange(6, dtype=np.int64),
    "a/wide": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
    "a/none": np.zeros((0, 5), np.float64),
    "b/one": np.array([[7]], np.int16),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "state.npz", checkpoint.State({"number": 3}, ARRAYS))
    return tmp_path / "state.npz"


def test_arrays_come_back_as_they_were(path: Path) -> None:
    state = checkpoint.load(path)
    assert state is not None
    assert state.meta["number"] == 3
    assert state.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert state.arrays[name].dtype == array.dtype
        assert state.arrays[name].tolist() == array.tolist()


def test_names_under_a_prefix(path: Path) -> None:
    with checkpoint.opened(path) as state:
        inner = state.arrays.under("a/")
        assert list(inner) == ["plain", "wide", "none"]
        assert len(inner) == 3
        assert inner["plain"].tolist() == list(range(6))
        with pytest.raises(KeyError):
            inner["one"]


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_read_into_its_place(path: Path, name: str) -> None:
    out = np.full_like(ARRAYS[name], 99)
    with checkpoint.opened(path) as state:
        state.arrays.into(name, out)
    assert out.tobytes() == ARRAYS[name].tobytes()


def test_an_array_is_read_into_columns_of_a_larger_one(path: Path) -> None:
    out = np.full((3, 7), 99, np.float32)
    with checkpoint.opened(path) as state:
        state.arrays.into("a/wide", out[:, 1:5])
    assert (out[:, 1:5] == ARRAYS["a/wide"]).all()
    assert (out[:, [0, 5, 6]] == 99).all()


@pytest.mark.parametrize("out", [np.zeros((4, 3), np.float32), np.zeros((3, 4)), np.zeros(12, np.float32)])
def test_an_array_of_another_kind_is_refused(path: Path, out: np.ndarray) -> None:
    with checkpoint.opened(path) as state, pytest.raises(ValueError, match=r"a/wide is float32 \[3, 4\], expected"):
        state.arrays.into("a/wide", out)
    assert not out.any()


def test_a_large_array_never_lies_in_memory_twice(tmp_path: Path) -> None:
    large = np.random.default_rng(0).random((4, 1 << 20))  # 32 MB
    checkpoint.save(tmp_path / "state.npz", checkpoint.State({}, {"large": large}))
    out = np.zeros((4, 5 << 18))
    tracemalloc.start()
    try:
        with checkpoint.believed(tmp_path / "state.npz", lambda meta: True) as state:
            assert state is not None
            state.arrays.into("large", out[:, : 1 << 20])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (out[:, : 1 << 20] == large).all()
    assert peak < large.nbytes // 8


def test_what_is_not_wanted_is_not_read(path: Path) -> None:
    with checkpoint.believed(path, lambda meta: meta["number"] == 4) as state:
        assert state is None
    with checkpoint.believed(path, lambda meta: meta["number"] == 3) as state:
        assert state is not None
    with checkpoint.believed(path.with_name("absent.npz"), lambda meta: True) as state:
        assert state is None


def test_nothing_of_a_damaged_file_is_believed(path: Path) -> None:
    """Whichever byte of an array is damaged: either it is noticed before the first is used, or no array has changed."""
    whole = path.read_bytes()
    noticed = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        with checkpoint.believed(path, lambda meta: True) as state:
            if state is None:
                noticed += 1
            else:
                for name, array in ARRAYS.items():
                    assert state.arrays[name].tobytes() == array.tobytes()
    assert noticed > len(whole) // 3
    path.write_bytes(whole[: len(whole) // 2])
    with checkpoint.believed(path, lambda meta: True) as state:
        assert state is None


def test_an_array_that_is_damaged_raises_when_it_is_read(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(ARRAYS["a/wide"].tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with checkpoint.opened(path) as state, pytest.raises(zipfile.BadZipFile):
        state.arrays.into("a/wide", np.zeros((3, 4), np.float32))


def test_a_damaged_file_has_no_places_or_those_it_had(tmp_path: Path) -> None:
    """Every byte damaged once: what is raised is what a damaged file is said to raise, and nothing else."""
    path, names = tmp_path / "state.npz", ["one", "two"]
    arrays = {name: np.frombuffer(name.encode() * 5, np.uint8) for name in names}
    checkpoint.save(path, checkpoint.State({}, arrays))
    whole = path.read_bytes()
    for name, offset, length in checkpoint.places(path, names):
        assert whole[offset : offset + length] == arrays[name].tobytes()
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            assert [name for name, _, _ in checkpoint.places(path, names)] == names
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            refused += 1
    assert refused > len(whole) // 5
