"""The eleven basic colour names (Berlin and Kay) for every pixel.

Rule, applied to the centre of each of 32 x 32 x 32 cells of 8-bit sRGB (so a name depends on R // 8, G // 8,
B // 8 only): go to CIE L*a*b* (D65), take chroma C and hue angle h, then

- C < 9, or C < 14 where L < 20 or L > 85: black if L < 22, white if L > 86, grey between;
- very dark (L < 14) is black whatever its hue;
- otherwise by hue: red up to 42 degrees, orange to 75, yellow to 108, green to 190, blue to 309, purple to 342,
  then pink, which meets red again at 8 degrees;
- brown is dark or weak orange and yellow (hue 42..108: L < 52, or L < 68 with C < 38) and weak dark red
  (hue 22..42, L < 45, C < 45); light weak tones of these hues (C < 26, L > 75) are white above L 88, else grey;
- pink also takes light red and purple (hue 0..42 with L > 62; hue 309..360 with L > 58).

It is our own rule, in the spirit of published colour-naming studies; a published probability table (32,768 rows,
11 names) can be used in its place, see `read_table`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from broden.errors import DataError

NAMES = ("black", "blue", "brown", "grey", "green", "orange", "pink", "purple", "red", "white", "yellow")
"""Order of the indices that `name_pixels` gives, 0..10: the order of the published table."""


def lab(rgb: NDArray[np.floating]) -> NDArray[np.float64]:
    """CIE L*a*b* (D65) of sRGB values in 0..1, [..., 3]."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


@cache
def rule_table() -> NDArray[np.uint8]:
    """Index into NAMES for each cell, uint8 [32, 32, 32] over R // 8, G // 8, B // 8."""
    axis = (np.arange(32) * 8 + 4) / 255.0
    cells = lab(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1))
    light, a, b = cells[..., 0], cells[..., 1], cells[..., 2]
    chroma = np.hypot(a, b)
    hue = np.degrees(np.arctan2(b, a)) % 360
    plain = (chroma < 9) | ((chroma < 14) & ((light < 20) | (light > 85)))
    warm = (hue >= 42) & (hue < 108)
    pale = warm & (chroma < 26) & (light > 75)
    brown = (warm & ((light < 52) | ((light < 68) & (chroma < 38)))) | (
        (hue >= 22) & (hue < 42) & (light < 45) & (chroma < 45)
    )
    pink = ((hue < 42) & (light > 62)) | ((hue >= 309) & (light > 58)) | ((hue >= 342) & (light > 40))
    # The first condition that holds decides.
    rules = [
        (plain & (light < 22), "black"),
        (plain & (light > 86), "white"),
        (plain, "grey"),
        (light < 14, "black"),
        (pale & (light > 88), "white"),
        (pale, "grey"),
        (brown, "brown"),
        (pink, "pink"),
        ((hue < 42) | (hue >= 352), "red"),
        (hue < 75, "orange"),
        (hue < 108, "yellow"),
        (hue < 190, "green"),
        (hue < 309, "blue"),
    ]
    table = np.select([mask for mask, _ in rules], [NAMES.index(name) for _, name in rules], NAMES.index("purple"))
    table = table.astype(np.uint8)
    table.setflags(write=False)
    return table


def read_table(path: Path) -> NDArray[np.uint8]:
    """The published colour-name table, from a .npy or whitespace text file, as uint8 [32, 32, 32].

    Takes a 32 x 32 x 32 array of indices into NAMES over R // 8, G // 8, B // 8 (as NetDissect stores it), or
    32,768 rows of 11 probabilities, or of R G B and 11 probabilities; row order is R // 8 + 32 (G // 8) +
    1,024 (B // 8), and columns in the order of NAMES. The largest probability decides, the first of equals.
    Raises DataError.
    """
    try:
        values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(str(path), None, f"not a colour-name table ({error})") from None
    if values.shape == (32, 32, 32) and np.isin(values, np.arange(11)).all():
        return values.astype(np.uint8)
    if values.ndim == 2 and values.shape[1] == 14:
        values = values[:, 3:]
    if values.shape != (32768, 11) or not np.isfinite(values).all():
        raise DataError(str(path), None, f"table of shape {values.shape}; expected 32,768 rows of 11 probabilities")
    return values.argmax(1).reshape(32, 32, 32).transpose(2, 1, 0).astype(np.uint8)


def name_pixels(rgb: NDArray[np.uint8], table: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Index into NAMES for each pixel of a picture, uint8 [h, w, 3] to uint8 [h, w]."""
    table = rule_table() if table is None else table
    cell = rgb >> 3
    flat = (cell[..., 0].astype(np.uint16) << 10) | (cell[..., 1].astype(np.uint16) << 5) | cell[..., 2]
    return table.reshape(-1)[flat]
