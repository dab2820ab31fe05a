"""Colour names: clear colours get their name, every cell has one, a user's table takes over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import broden
from broden import colours

CLEAR = {
    "red": [(200, 20, 30), (255, 0, 0), (150, 20, 20)],
    "orange": [(250, 140, 20), (255, 165, 0)],
    "yellow": [(250, 220, 40), (255, 255, 0)],
    "green": [(40, 150, 50), (0, 255, 0), (0, 100, 0)],
    "blue": [(30, 60, 200), (135, 190, 240), (0, 0, 255)],
    "purple": [(120, 40, 160), (128, 0, 128)],
    "pink": [(250, 160, 190), (255, 105, 180)],
    "brown": [(110, 60, 30), (139, 90, 43)],
    "grey": [(128, 128, 128), (90, 92, 95), (190, 190, 190)],
    "white": [(250, 250, 250), (255, 255, 255)],
    "black": [(5, 5, 5), (20, 20, 25)],
}


@pytest.mark.parametrize("name", colours.NAMES)
def test_clear_colours(name: str) -> None:
    pixels = np.array([CLEAR[name]], np.uint8)
    assert [colours.NAMES[i] for i in colours.name_pixels(pixels)[0]] == [name] * len(CLEAR[name])


def test_lightness_matches_the_definition_of_lab() -> None:
    known = colours.lab(np.array([[0.0, 0, 0], [1, 1, 1], [1, 0, 0]]))
    assert known == pytest.approx(np.array([[0, 0, 0], [100, 0, 0], [53.24, 80.09, 67.20]]), abs=0.02)


def test_every_name_is_used_and_pixels_look_up_their_cell() -> None:
    table = colours.rule_table()
    assert set(np.unique(table)) == set(range(11))
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    slow = [[table[r // 8, g // 8, b // 8] for r, g, b in row] for row in rgb.tolist()]
    assert (colours.name_pixels(rgb) == np.array(slow)).all()


def test_the_published_layouts_are_read(tmp_path: Path) -> None:
    """Row order R // 8 + 32 (G // 8) + 1,024 (B // 8)."""
    chances = np.random.default_rng(1).random((32768, 11))
    np.savetxt(tmp_path / "w2c.txt", np.hstack([np.zeros((32768, 3)), chances]), fmt="%.9f")
    np.save(tmp_path / "w2c.npy", chances)
    table = colours.read_table(tmp_path / "w2c.npy")
    assert (colours.read_table(tmp_path / "w2c.txt") == table).all()
    for r, g, b in ((0, 0, 0), (3, 7, 31), (31, 1, 16)):
        assert table[r, g, b] == chances[r + 32 * g + 1024 * b].argmax()
    np.save(tmp_path / "cube.npy", table.astype(np.int64))
    assert (colours.read_table(tmp_path / "cube.npy") == table).all()


def test_a_wrong_table_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((10, 11)))
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "c.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("a.npy", "b.npy", "c.npy", "none.txt"):
        with pytest.raises(broden.DataError):
            colours.read_table(tmp_path / name)
