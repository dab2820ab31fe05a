"""Textures and material fills, in whole-number arithmetic so that every machine draws the same bytes."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

TEXTURES = (
    "striped", "dotted", "chequered", "zigzagged", "grid", "bubbly", "lined", "banded", "crosshatched", "bricked",
)  # fmt: skip
MATERIALS = (
    "brick", "wood", "metal", "glass", "fabric", "foliage", "stone", "water", "skin", "tile", "paper", "sand",
)  # fmt: skip
PLAIN = len(MATERIALS)
"""Index in the bank of a fill without a pattern."""

BANK_MARGIN = 64
Grid = NDArray[np.int32]


def noise(shape: tuple[int, ...], salt: int) -> NDArray[np.uint8]:
    """Reproducible noise 0..255: a hash of position and salt."""
    value = np.arange(int(np.prod(shape)), dtype=np.uint32).reshape(shape) + np.uint32(salt * 0x9E3779B1 % 2**32)
    value ^= value >> np.uint32(16)
    value *= np.uint32(0x7FEB352D)
    value ^= value >> np.uint32(15)
    value *= np.uint32(0x846CA68B)
    value ^= value >> np.uint32(16)
    return (value >> np.uint32(24)).astype(np.uint8)


def _wave(value: Grid, period: int) -> Grid:
    """Triangle wave 0..period // 2."""
    value = value % period
    return np.minimum(value, period - value)


def texture(name: str, size: int, period: int, turn: int, phase: int, soft: bool = False) -> NDArray[np.uint8]:
    """Weight 0..255 of the second colour at each pixel, uint8 [size, size].

    `period` in pixels; `turn` 0..3 = direction of the pattern where it has one; `phase` shifts it.
    """
    y, x = np.indices((size, size), np.int32)
    x = x + phase
    y = y + phase * 2
    if turn & 1:
        x, y = y, x
    if turn & 2:  # 45 degrees: lengths grow by about 3 / 2
        x, y, period = x + y, x - y + 4 * size, period * 3 // 2
    half = max(2, period // 2)
    period = 2 * half
    thin = max(1, period // 6)
    if name == "striped":
        mask = x % period < half
    elif name == "banded":
        return ((x // period % 3) * 127).astype(np.uint8)
    elif name == "lined":
        mask = x % half < max(1, half // 4)
    elif name == "chequered":
        mask = (x // half + y // half) % 2 == 0
    elif name == "dotted":
        mask = (x % period - half) ** 2 + (y % period - half) ** 2 < (half * 2 // 3) ** 2
    elif name == "zigzagged":
        mask = (y + _wave(x, 2 * period)) % period < half
    elif name == "grid":
        mask = (x % period < thin) | (y % period < thin)
    elif name == "crosshatched":
        mask = ((x + y) % period < thin) | ((x - y) % period < thin)
    elif name == "bricked":
        row = y // half
        mask = (y % half < thin) | ((x + row % 2 * half) % (2 * half) < thin)
    else:  # bubbly: rings of two sizes, every second row shifted
        row = y // period
        square = ((x + row % 2 * half) % period - half) ** 2 + (y % period - half) ** 2
        outer = half * half * 4 // 5
        mask = (square < outer) & (square > outer * 2 // 5)
    return np.where(mask, np.uint8(255), np.uint8(0))


@cache
def material_bank(size: int) -> NDArray[np.int16]:
    """Brightness added by each material's fill, int16 [materials + 1, size + margin, size + margin]; last is plain."""
    side = size + BANK_MARGIN
    y, x = np.indices((side, side), np.int32)
    unit = max(2, size * 6 // 224)
    fine = noise((side, side), 1).astype(np.int32) - 128
    coarse_side = side // max(2, unit // 2) + 2
    coarse = noise((coarse_side, coarse_side), 2).astype(np.int32) - 128
    coarse = coarse[y // max(2, unit // 2), x // max(2, unit // 2)]
    blob = noise((side // unit + 2, side // unit + 2), 3).astype(np.int32)[y // unit, x // unit]
    row = y // (unit * 3 // 2)
    joint = (y % (unit * 3 // 2) < 2) | ((x + row % 2 * unit * 2) % (unit * 4) < 2)
    fills = {
        "brick": np.where(joint, 70, fine // 10),
        "wood": -_wave(y * 2 + _wave(x, unit * 16) // 4, unit * 2) * 60 // unit + 20 + fine // 16,
        "metal": _wave(y, unit * 8) * 50 // (unit * 4) - 25,
        "glass": np.where((x + y) % (unit * 6) < unit, 60, 0) + 5,
        "fabric": np.where((x // max(1, unit // 3) + y // max(1, unit // 3)) % 2 == 0, 26, -26),
        "foliage": np.where(blob % 3 == 0, -55, 15) + fine // 4,
        "stone": coarse // 3 + fine // 12,
        "water": np.where((y + _wave(x, unit * 4)) % (unit * 2) < unit // 2, 50, -10),
        "skin": fine // 32,
        "tile": np.where((y + _wave(x, unit * 2)) % (unit * 2) < max(2, unit // 3), -70, 10),
        "paper": fine // 14,
        "sand": fine // 3,
    }
    bank = np.zeros((len(MATERIALS) + 1, side, side), np.int16)
    for index, name in enumerate(MATERIALS):
        bank[index] = fills[name]
    bank.setflags(write=False)
    return bank
