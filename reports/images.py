"""Pictures: upsampled maps, masks, and the outline of a mask as an SVG path.

The mask rule is the one of the method: bilinear at half-pixel centres, edges repeated, then strictly above the
threshold. Outlines are traced on the same interpolant (marching squares, Lorensen and Cline 1987 in two dimensions),
so that one small path serves every mask style.
"""

import base64
import io
import re

import numpy as np
from PIL import Image

BOX = 256  # side of a thumbnail in path units
FINE = 28  # an outline is traced on a grid of at least this many samples a side, where the map is coarser
COARSE = 56  # and at most this many
SLACK = 2.0  # path units that a corner of an outline may be off: less than a pixel of a thumbnail
ROUNDS = 3  # rounds in which corners are left out
HEAT = 14  # side limit of the map that the heat style shows


def _axis(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    place = (np.arange(size, dtype=np.float64) + 0.5) * (length / size) - 0.5
    low = np.floor(place)
    first = np.clip(low, 0, length - 1).astype(np.int64)
    second = np.clip(low + 1, 0, length - 1).astype(np.int64)
    return first, second, (place - low).astype(np.float32)


def upsample(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear at half-pixel centres with repeated edges: float32 [..., h, w] -> float32 [..., H, W], for pictures."""
    maps = np.asarray(maps, dtype=np.float32)
    first, second, part = _axis(maps.shape[-2], size[0])
    top = maps[..., first, :]
    maps = top + part[:, None] * (maps[..., second, :] - top)
    first, second, part = _axis(maps.shape[-1], size[1])
    left = maps[..., first]
    return left + part * (maps[..., second] - left)


def mask(maps: np.ndarray, threshold: float | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool [..., H, W]: the upsampled map strictly above the threshold."""
    return upsample(maps, size) > np.asarray(threshold, dtype=np.float32)[..., None, None]


def dimmed(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The published rendering: uint8 [H, W, 3] with everything outside bool [H, W] at a fifth of its brightness."""
    return np.where(inside[..., None], image, (image.astype(np.uint16) + 2) // 5).astype(np.uint8)


# Which of a cell's edges (0 top, 1 right, 2 bottom, 3 left) a segment leaves and enters, the inside on its left.
# Index: bits of the corners that are inside, 1 top left, 2 top right, 4 bottom right, 8 bottom left; 16 and up: saddles
# whose centre is inside.
_SEGMENTS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((3, 0),), 2: ((0, 1),), 4: ((1, 2),), 8: ((2, 3),),
    3: ((3, 1),), 6: ((0, 2),), 12: ((1, 3),), 9: ((2, 0),),
    14: ((0, 3),), 13: ((1, 0),), 11: ((2, 1),), 7: ((3, 2),),
    5: ((3, 0), (1, 2)), 10: ((0, 1), (2, 3)),
    21: ((3, 2), (1, 0)), 26: ((0, 3), (2, 1)),
}  # fmt: skip
_FIRST = np.full((32, 2), -1, dtype=np.int64)
_SECOND = np.full((32, 2), -1, dtype=np.int64)
for _case, _pairs in _SEGMENTS.items():
    _FIRST[_case] = _pairs[0]
    if len(_pairs) > 1:
        _SECOND[_case] = _pairs[1]


def _samples(length: int) -> int:
    times = -(-FINE // length) | 1  # odd: the map's own nodes, where its peaks are, are among the samples
    return length * times if length < COARSE else COARSE


def outlines(maps: np.ndarray, thresholds: np.ndarray) -> list[str]:
    """The masks of maps [M, h, w] over thresholds [M] as closed SVG paths in a BOX x BOX square, '' for an empty mask.

    Every loop starts with one absolute 'M x y' and goes on in relative steps; even-odd filling gives the mask.
    """
    maps = np.asarray(maps, dtype=np.float32)
    count = len(maps)
    if not count:
        return []
    rows, columns = _samples(maps.shape[1]), _samples(maps.shape[2])
    # Around the samples one ring on the border with the edge repeated, and one that is outside, at the same places.
    height, width = rows + 4, columns + 4
    with np.errstate(invalid="ignore"):
        values = upsample(maps, (rows, columns)) - np.asarray(thresholds, np.float32)[:, None, None]
    values[~np.isfinite(values)] = -1.0
    field = np.pad(values, ((0, 0), (2, 2), (2, 2)), mode="edge")
    field[:, [0, -1], :] = field[:, :, [0, -1]] = -1.0
    inside = field > 0

    bits = inside.astype(np.int64)
    case = bits[:, :-1, :-1] + 2 * bits[:, :-1, 1:] + 4 * bits[:, 1:, 1:] + 8 * bits[:, 1:, :-1]
    item, r, c = np.nonzero((case > 0) & (case < 15))
    kind = case[item, r, c]
    saddle = (kind == 5) | (kind == 10)
    if saddle.any():
        i, y, x = item[saddle], r[saddle], c[saddle]
        centre = field[i, y, x] + field[i, y, x + 1] + field[i, y + 1, x] + field[i, y + 1, x + 1]
        kind[saddle] += np.where(centre > 0, 16, 0)

    # An edge's number: horizontal edges (item, row, column), then vertical ones behind them.
    half = count * height * width
    top = (item * height + r) * width + c
    edges = np.stack([top, half + top + 1, top + width, half + top])  # top, right, bottom, left of each cell
    leave, enter = [], []
    for table in (_FIRST, _SECOND):
        pair = table[kind]
        use = np.flatnonzero(pair[:, 0] >= 0)
        leave.append(edges[pair[use, 0], use])
        enter.append(edges[pair[use, 1], use])
    start, stop = np.concatenate(leave), np.concatenate(enter)
    by = np.argsort(start, kind="stable")
    start, stop = start[by], stop[by]
    follow = np.searchsorted(start, stop)

    # Where each edge is crossed, in path units; samples sit at half-pixel centres, both rings on the border itself.
    across = start >= half
    node = np.where(across, start - half, start)
    i, rest = np.divmod(node, height * width)
    y0, x0 = np.divmod(rest, width)
    y1, x1 = y0 + across, x0 + ~across
    a, b = field[i, y0, x0], field[i, y1, x1]
    t = a / (a - b)
    line_x = np.concatenate([[0.0, 0.0], (np.arange(columns) + 0.5) * (BOX / columns), [BOX, BOX]])
    line_y = np.concatenate([[0.0, 0.0], (np.arange(rows) + 0.5) * (BOX / rows), [BOX, BOX]])
    xs = np.rint(line_x[x0] + t * (line_x[x1] - line_x[x0])).astype(np.int64)
    ys = np.rint(line_y[y0] + t * (line_y[y1] - line_y[y0])).astype(np.int64)

    # Follow the loops; what is done with the edges in that order is done at once for all.
    go = follow.tolist()
    seen = bytearray(len(go))
    order: list[int] = []
    heads: list[int] = []
    for head in range(len(go)):
        if seen[head]:
            continue
        heads.append(len(order))
        at = head
        while not seen[at]:
            seen[at] = 1
            order.append(at)
            at = go[at]
    return _drawn(np.array(order, np.int64), np.array(heads, np.int64), i, xs, ys, count)


def _drawn(
    order: np.ndarray, heads: np.ndarray, owner: np.ndarray, xs: np.ndarray, ys: np.ndarray, count: int
) -> list[str]:
    """SVG paths of `count` items from edges in the order of their loops, which begin at `heads`."""
    loop = np.repeat(np.arange(len(heads)), np.diff(np.append(heads, len(order))))
    loop, x, y = _thinned(loop, xs[order], ys[order])
    ends = np.searchsorted(loop, np.arange(len(heads) + 1))
    _, after = _neighbours(loop)
    steps = np.stack([x[after] - x, y[after] - y], axis=1)
    words = _STEPS[steps + BOX].ravel().tolist()
    parts: list[list[str]] = [[] for _ in range(count)]
    for k in np.flatnonzero(np.diff(ends) > 2).tolist():  # what is smaller than a path unit leaves nothing to draw
        first, last = int(ends[k]), int(ends[k + 1])
        path = "".join(words[2 * first : 2 * last]).lstrip()
        parts[int(owner[order[heads[k]]])].append(f"M{x[first]} {y[first]}l{path}z")
    return ["".join(part) for part in parts]


def _neighbours(loop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the corner before and the corner after each corner of its loop."""
    starts = np.flatnonzero(loop[1:] != loop[:-1]) + 1
    starts, ends = np.append(0, starts), np.append(starts, len(loop)) - 1
    before, after = np.arange(len(loop)) - 1, np.arange(len(loop)) + 1
    if len(loop):
        before[starts], after[ends] = ends, starts
    return before, after


def _thinned(loop: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The corners of closed loops without those that lie within SLACK of the line between their neighbours: first all
    that lie on it, then in ROUNDS rounds every other one, so that the slack is spent in parts and not exceeded."""
    before, _ = _neighbours(loop)
    moves = (x != x[before]) | (y != y[before])
    loop, x, y = loop[moves], x[moves], y[moves]
    for turn in range(ROUNDS + 1):
        before, after = _neighbours(loop)
        ax, ay, bx, by = x - x[before], y - y[before], x[after] - x[before], y[after] - y[before]
        far, length, along = bx * ay - by * ax, bx * bx + by * by, ax * bx + ay * by
        slack = SLACK / ROUNDS if turn else 0.0
        idle = (far * far <= slack * slack * length) & (along >= 0) & (along <= length)
        if turn:
            idle &= (np.arange(len(loop)) - np.searchsorted(loop, loop)) % 2 == 1
        loop, x, y = loop[~idle], x[~idle], y[~idle]
    return loop, x, y


_STEPS = np.array([f"{v}" if v < 0 else f" {v}" for v in range(-BOX, BOX + 1)], dtype=object)


_START = re.compile(r"M(\d+)")


def beside(paths: list[str]) -> str:
    """Paths of neighbouring thumbnails as one path of the strip, the k-th moved right by k x BOX."""
    return "".join(_moved(path, k * BOX) for k, path in enumerate(paths))


def _moved(path: str, right: int) -> str:
    return _START.sub(lambda start: f"M{int(start[1]) + right}", path)


def veil(paths: list[str], most: int | None = None) -> str:
    """Everything outside the masks of a strip, for even-odd filling; `most`: characters that it may have, for which
    the last thumbnails stay without."""
    while most is not None and paths and sum(map(len, paths)) > most:
        paths = paths[:-1]
    return f"M0 0H{BOX * len(paths)}V{BOX}H0Z" + beside(paths)


def heat(activation: np.ndarray, threshold: float) -> list[int | str]:
    """[h, w, base64 of h*w bytes]: the map on a scale from the threshold to its maximum, at most HEAT a side."""
    activation = np.asarray(activation, dtype=np.float32)
    threshold = threshold if np.isfinite(threshold) else 0.0
    activation = np.where(np.isfinite(activation), activation, np.float32(threshold))
    size = (min(activation.shape[0], HEAT), min(activation.shape[1], HEAT))
    if size != activation.shape:
        activation = upsample(activation, size)
    low, high = float(threshold), float(activation.max())
    scale = 255.0 / (high - low) if high > low else 0.0
    levels = np.rint(np.maximum(activation - np.float32(low), 0) * scale).astype(np.uint8)
    return [size[0], size[1], base64.b64encode(levels.tobytes()).decode("ascii")]


def shrunk(file: bytes, longest: int) -> tuple[bytes, int, int] | None:
    """A still picture as WebP, no side longer than `longest`, with its width and height; None for what is no picture.
    A film stays as it is."""
    try:
        with Image.open(io.BytesIO(file)) as stored:
            if getattr(stored, "n_frames", 1) > 1:
                return file, stored.width, stored.height
            shown = stored.convert("RGB")
    except (OSError, Image.DecompressionBombError):
        return None
    shown.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    shown.save(out, "WEBP", quality=86, method=4)
    return out.getvalue(), shown.width, shown.height


def missing(px: int) -> np.ndarray:
    """What stands for an image that is not there: light grey with one diagonal, uint8 [px, px, 3]."""
    tile = np.full((px, px, 3), 225, dtype=np.uint8)
    tile[np.arange(px), np.arange(px)] = 160
    return tile
