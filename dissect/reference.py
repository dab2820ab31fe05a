"""The method in plain torch: specification, fallback where nothing is compiled, and oracle of the kernels.

The functions named like ops have their schemas (`ops.py`); the rest is the definition on whole arrays, as one would
write it on paper. Slow on purpose.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BIN_SHIFT = 21  # a bin is the sign, the exponent and two bits of the fraction of a float32
ALIGNED = 8  # bytes at whose multiples the parts of a packed chunk begin
UNSIGNED = {1: torch.uint8, 2: torch.int16, 4: torch.int32}  # by bytes; read as unsigned
LANES = 8  # order of summation of moments, see csrc/core/activation.h


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """a + t (b - a) in float32, each operation rounded."""
    return a + t * (b - a)


def upsample(maps: Tensor, row_node: Tensor, row_t: Tensor, column_node: Tensor, column_t: Tensor) -> Tensor:
    """maps [..., h, w] -> [..., H, W]: rows then columns, clamped to the range of the four corners."""
    upper, lower = (maps[..., row_node[:, i].long(), :] for i in (0, 1))
    corners = [side[..., column_node[:, i].long()] for side in (upper, lower) for i in (0, 1)]
    upper_left, upper_right, lower_left, lower_right = corners
    left = lerp(upper_left, lower_left, row_t[:, None])
    right = lerp(upper_right, lower_right, row_t[:, None])
    lowest = torch.minimum(torch.minimum(upper_left, upper_right), torch.minimum(lower_left, lower_right))
    highest = torch.maximum(torch.maximum(upper_left, upper_right), torch.maximum(lower_left, lower_right))
    return torch.minimum(torch.maximum(lerp(left, right, column_t), lowest), highest)


def scan(
    maps: Tensor,
    valid: Tensor,
    first_image: int,
    keep: int,
    tail: Tensor,
    fill: Tensor,
    bound: Tensor,
    low: Tensor,
    high: Tensor,
    nonfinite: Tensor,
    moments: Tensor,
    histogram: Tensor,
    top_value: Tensor,
    top_image: Tensor,
    top_place: Tensor,
    peak: Tensor,
) -> None:
    """See `ops.scan`."""
    images, places, units = maps.shape
    peak.fill_(-math.inf)
    slots = top_value.shape[1]
    for b in range(images):
        if not valid[b]:
            continue
        values = maps[b] + 0.0  # -0 becomes +0, so that equal values have equal bits
        finite = torch.isfinite(values)
        nonfinite += (~finite).sum(0)
        known = torch.where(finite, values, torch.tensor(-math.inf))
        peak[b] = known.amax(0) if places else peak[b]
        torch.minimum(low, torch.where(finite, values, torch.tensor(math.inf)).amin(0), out=low)
        torch.maximum(high, peak[b], out=high)
        lanes = torch.zeros(2, LANES, units, dtype=torch.float64)
        for p in range(places):
            value = torch.where(finite[p], values[p], torch.tensor(0.0)).double()
            lanes[0, p % LANES] += value
            lanes[1, p % LANES] += value * value
        total = torch.zeros(2, units, dtype=torch.float64)
        for lane in range(LANES):
            total += lanes[:, lane]
        moments += total.T
        if len(histogram):
            others = torch.tensor(math.inf)  # whatever is not finite shares the bin of infinity
            bins = torch.where(finite, values, others).view(torch.int32) >> BIN_SHIFT & len(histogram) - 1
            histogram.scatter_add_(0, bins.long(), torch.ones(places, units, dtype=torch.int32))
        for u in range(units):
            kept = torch.cat([tail[u, : fill[u]], known[:, u][known[:, u] > bound[u]]])
            if len(kept) >= keep:
                kept = kept.sort(descending=True).values[:keep]
                bound[u] = kept[-1]
            tail[u, : len(kept)] = kept
            fill[u] = len(kept)
            if slots and peak[b, u] > -math.inf:
                place = int((known[:, u] == peak[b, u]).nonzero()[0])
                entries = [
                    (float(top_value[u, s]), int(top_image[u, s]), int(top_place[u, s]))
                    for s in range(slots)
                    if top_image[u, s] >= 0
                ]
                entries.append((float(peak[b, u]), first_image + b, place))
                entries.sort(key=lambda entry: (-entry[0], entry[1]))
                for s, (best, image, where) in enumerate(entries[:slots]):
                    top_value[u, s], top_image[u, s], top_place[u, s] = best, image, where


def _keep_nodes(dense: Tensor, bound: Tensor) -> Tensor:
    """dense [h, w] -> bool [h, w]: nodes above the bound and their eight neighbours."""
    above = (dense > bound) & torch.isfinite(dense)
    return torch.nn.functional.max_pool2d(above[None].float(), 3, 1, 1)[0].bool()


def _write_chunk(pairs: list[tuple[int, int, Tensor, Tensor]], outputs: tuple[Tensor, ...], used: Tensor) -> None:
    unit, image, start, place, value = outputs
    used[0], used[1] = len(pairs), sum(len(places) for _, _, places, _ in pairs)
    if used[0] > len(unit) or used[1] > len(value):
        return
    node = 0
    start[0] = 0
    for i, (u, b, places, values) in enumerate(pairs):
        unit[i], image[i] = u, b
        place[node : node + len(places)] = places.to(place.dtype)
        value[node : node + len(places)] = values
        node += len(places)
        start[i + 1] = node


def gather(
    maps: Tensor,
    height: int,
    width: int,
    peak: Tensor,
    bound: Tensor,
    pair_unit: Tensor,
    pair_image: Tensor,
    pair_start: Tensor,
    node_place: Tensor,
    node_value: Tensor,
    used: Tensor,
) -> None:
    """See `ops.gather`."""
    pairs = []
    for u in range(maps.shape[2]):
        for b in range(maps.shape[0]):
            if peak[b, u] > bound[u]:
                dense = maps[b, :, u].reshape(height, width)
                places = _keep_nodes(dense, bound[u]).flatten().nonzero()[:, 0]
                if len(places):
                    pairs.append((u, b, places, dense.flatten()[places]))
    _write_chunk(pairs, (pair_unit, pair_image, pair_start, node_place, node_value), used)


def _dense(i: int, start: Tensor, place: Tensor, value: Tensor, height: int, width: int) -> Tensor:
    """The map of pair i, -inf where a node is not known."""
    dense = torch.full((height * width,), -math.inf)
    nodes = slice(int(start[i]), int(start[i + 1]))
    places = place[nodes].long()
    dense[torch.where(places < 0, places + 65536, places)] = value[nodes]
    return dense.reshape(height, width)


def prune(
    pair_unit: Tensor,
    pair_image: Tensor,
    pair_start: Tensor,
    node_place: Tensor,
    node_value: Tensor,
    height: int,
    width: int,
    bound: Tensor,
    out_unit: Tensor,
    out_image: Tensor,
    out_start: Tensor,
    out_place: Tensor,
    out_value: Tensor,
    used: Tensor,
) -> None:
    """See `ops.prune`."""
    pairs = []
    for i in range(len(pair_unit)):
        u = int(pair_unit[i])
        dense = _dense(i, pair_start, node_place, node_value, height, width)
        places = _keep_nodes(dense, bound[u]).flatten().nonzero()[:, 0]
        if len(places):
            pairs.append((u, int(pair_image[i]), places, dense.flatten()[places]))
    _write_chunk(pairs, (out_unit, out_image, out_start, out_place, out_value), used)


def packed_spans(pairs: int, nodes: int, widths: Sequence[int]) -> list[slice]:
    """Where values, units, images, counts and places of a chunk lie in its bytes; widths in bytes of the last four."""
    unit, image, count, place = widths
    spans, first = [], 0
    for size in (4 * nodes, unit * pairs, image * pairs, count * pairs, place * nodes):
        spans.append(slice(first, first + size))
        first = -(-(first + size) // ALIGNED) * ALIGNED
    return spans


def pack(
    pair_unit: Tensor,
    pair_image: Tensor,
    pair_start: Tensor,
    node_place: Tensor,
    node_value: Tensor,
    unit_bytes: int,
    image_bytes: int,
    count_bytes: int,
    out: Tensor,
) -> None:
    """See `ops.pack`."""
    widths = unit_bytes, image_bytes, count_bytes, node_place.itemsize
    spans = packed_spans(len(pair_unit), len(node_value), widths)
    counts = pair_start[1:] - pair_start[:-1]
    for span, width, source in zip(spans[1:], widths, (pair_unit, pair_image, counts, node_place)):
        out[span].view(UNSIGNED[width]).copy_(source)  # of whole numbers the low bytes
    out[spans[0]].view(torch.float32).copy_(node_value)


def unpack(
    data: Tensor,
    nodes: int,
    unit_bytes: int,
    image_bytes: int,
    count_bytes: int,
    place_bytes: int,
    pair_unit: Tensor,
    pair_image: Tensor,
    pair_start: Tensor,
) -> None:
    """See `ops.unpack`."""
    widths = unit_bytes, image_bytes, count_bytes, place_bytes
    counts = torch.empty_like(pair_unit)
    for span, width, out in zip(
        packed_spans(len(pair_unit), nodes, widths)[1:], widths, (pair_unit, pair_image, counts)
    ):
        out.copy_(data[span].view(UNSIGNED[width]))
        if width == 2:
            out.bitwise_and_(0xFFFF)
    pair_start[:1] = 0
    torch.cumsum(counts, 0, dtype=torch.int32, out=pair_start[1:])


def overlap(
    pair_unit: Tensor,
    pair_image: Tensor,
    pair_start: Tensor,
    node_place: Tensor,
    node_value: Tensor,
    height: int,
    width: int,
    row_node: Tensor,
    row_t: Tensor,
    column_node: Tensor,
    column_t: Tensor,
    threshold: Tensor,
    planes: Tensor,
    plane_start: Tensor,
    scalars: Tensor,
    scalar_start: Tensor,
    held: Tensor,
    primary: Tensor,
    area_rule: int,
    intersection: Tensor,
    area: Tensor,
    mask: Tensor,
) -> None:
    """See `ops.overlap`."""
    labels, categories = primary.shape[0], area.shape[1]
    for i in range(len(pair_unit)):
        u, b = int(pair_unit[i]), int(pair_image[i])
        dense = _dense(i, pair_start, node_place, node_value, height, width)
        pixels = upsample(dense, row_node, row_t, column_node, column_t) > threshold[u]
        count = int(pixels.sum())
        if not count:
            continue
        seen = torch.zeros(labels, dtype=torch.int64)
        for k in range(int(plane_start[b]), int(plane_start[b + 1])):
            numbers = planes[k][pixels].long()
            seen += torch.bincount(torch.where(numbers < 0, numbers + 65536, numbers), minlength=labels)
        for number in scalars[int(scalar_start[b]) : int(scalar_start[b + 1])].tolist():
            seen[number] += count
        intersection[u] += seen
        touched = set(primary[seen > 0].tolist())
        for category in range(categories):
            holds = bool(int(held[b]) >> category & 1)
            if area_rule == 2 or (area_rule == 0 and holds) or (area_rule == 1 and category in touched):
                area[u, category] += count
        mask[u] += count


def normalise(pixels: Tensor, mean: Tensor, std: Tensor, out: Tensor) -> None:
    """See `ops.normalise`."""
    out.copy_((pixels.to(torch.float32) - mean) / std)


def ranking(peaks: Tensor, start: Tensor, numbers: Tensor, primary: Tensor, precision: Tensor) -> None:
    """See `ops.ranking`."""
    images = peaks.shape[1]
    holds = torch.zeros(images, len(primary), dtype=torch.bool)
    holds[torch.arange(images).repeat_interleave(start.diff()), numbers.long()] = True
    precision.fill_(math.nan)
    for c in range(len(primary)):
        if primary[c] < 0 or not holds[:, c].any():
            continue
        population = holds[:, primary == primary[c]].any(1)
        for u in range(len(peaks)):
            among, found = peaks[u, population], peaks[u, holds[:, c]]
            at_least = ((int((found >= v).sum()), int((among >= v).sum())) for v in found.sort(descending=True).values)
            precision[u, c] = sum(mine / all_ for mine, all_ in at_least) / len(found)


def patch_gather(base: Tensor, patch: Tensor, origin: Tensor, start: Tensor, fill: float, out: Tensor) -> None:
    """See `ops.patch_gather`."""
    height, width = base.shape[:2]
    rows = start[:, :1] + torch.arange(out.shape[1], device=out.device)
    columns = start[:, 1:] + torch.arange(out.shape[2], device=out.device)
    cut = base[rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    if patch.numel():
        h, w = patch.shape[1:3]
        y, x = rows - origin[:, :1], columns - origin[:, 1:]
        which = torch.arange(len(patch), device=out.device)[:, None, None]
        changed = patch[which, y.clamp(0, h - 1)[:, :, None], x.clamp(0, w - 1)[:, None, :]]
        inside = ((y >= 0) & (y < h))[:, :, None] & ((x >= 0) & (x < w))[:, None, :]
        cut = torch.where(inside[..., None], changed, cut)
    outside = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[:, None, :]
    out.copy_(cut.masked_fill(outside[..., None], fill))


# Below this squared gradient the slope of TV^beta is held, as the CVPR'15 code does: beta < 2 has no bound at 0.
VARIATION_FLOOR = 1e-5


def total_variation(z: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(dx^2 + dy^2)^(beta / 2) of every value of z [B, C, h, w], last row and column replicated, and the gradient of
    its sum; both [B, C, h, w] (Mahendran & Vedaldi 2015, section 2.1)."""
    dx, dy = torch.zeros_like(z), torch.zeros_like(z)
    torch.sub(z[..., :, 1:], z[..., :, :-1], out=dx[..., :, :-1])
    torch.sub(z[..., 1:, :], z[..., :-1, :], out=dy[..., :-1, :])
    squared = dx * dx + dy * dy
    slope = 1.0 if beta == 2 else squared.clamp(min=VARIATION_FLOOR).pow(beta / 2 - 1)
    dx, dy = slope * dx, slope * dy
    gradient = -(dx + dy)
    gradient[..., :, 1:] += dx[..., :, :-1]
    gradient[..., 1:, :] += dy[..., :-1, :]
    return squared if beta == 2 else squared.pow(beta / 2), beta * gradient


def alpha_norm(z: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """(sum over planes of z^2)^(alpha / 2) of every pixel of z [B, C, h, w], [B, 1, h, w], and the gradient of its sum
    [B, C, h, w], which at 0 is 0 for every alpha >= 1."""
    squared = (z * z).sum(1, keepdim=True)
    steep = torch.where(squared > 0, squared.pow(alpha / 2 - 1), 0)
    return steep * squared, alpha * steep * z


def natural(
    z: Tensor, alpha: float, alpha_scale: float, beta: float, variation_scale: float, gradient: Tensor, rows: Tensor
) -> None:
    """See `ops.natural`."""
    variation, down_variation = total_variation(z, beta)
    lengths, down_lengths = alpha_norm(z, alpha)
    gradient.copy_(variation_scale * down_variation + alpha_scale * down_lengths)
    energy = variation_scale * variation.double().sum((1, 3)) + alpha_scale * lengths.double().sum((1, 3))
    rows.copy_(torch.stack([energy, gradient.double().abs().sum((1, 3))], 2))


def descend(
    z: Tensor,
    gradient: Tensor,
    alpha: float,
    alpha_scale: float,
    beta: float,
    variation_scale: float,
    rate: Tensor,
    mu: float,
    memory: float,
    radius: float,
    squares: Tensor,
    speeds: Tensor,
    out: Tensor,
    rows: Tensor,
) -> None:
    """See `ops.descend`."""
    total = torch.empty_like(z)
    natural(z, alpha, alpha_scale, beta, variation_scale, total, rows)
    total += gradient
    rows[..., 1] = total.double().abs().sum((1, 3))
    squares.mul_(memory).add_(total * total)
    speeds.mul_(mu).sub_(total / (1 / rate.view(-1, 1, 1, 1) + squares.sqrt()))
    moved = z + speeds
    length = moved.square().sum(1, keepdim=True).sqrt()
    out.copy_(moved * torch.where(length > radius, radius * (1 - 4 * torch.finfo(z.dtype).eps) / length, 1))


def bend(kind: int, total: Tensor) -> Tensor:
    """What a hidden neuron of a pattern makes of its sum: 0 sine, 1 sigmoid, 2 Gaussian, 3 linear."""
    if kind == 0:
        return torch.sin(total)
    if kind == 1:
        return torch.sigmoid(total) * 2 - 1
    if kind == 2:
        return torch.exp(-total.square())
    return total.clamp(-10, 10)


def double_cone(hue: Tensor, light: Tensor, saturation: Tensor) -> Tensor:
    """Hue, lightness and saturation [V] in 0 … 1 to red, green, blue [3, V]."""
    chroma = (1 - (2 * light - 1).abs()) * saturation
    planes = []
    for shift in (0.0, 8.0, 4.0):
        k = (shift + hue * 12) % 12
        planes.append(light - chroma / 2 * torch.minimum(k - 3, 9 - k).clamp(-1, 1))
    return torch.stack(planes).clamp(0, 1)


def render_patterns(
    kinds: Tensor, neuron_start: Tensor, link_start: Tensor, sender: Tensor, weight: Tensor, places: Tensor, out: Tensor
) -> None:
    """See `ops.render_patterns`."""
    edges, starts, kind = neuron_start.tolist(), link_start.tolist(), kinds.tolist()
    for p, (first, last) in enumerate(zip(edges, edges[1:])):
        values = list(places)
        for at in range(first + len(places), last):
            total = torch.zeros_like(places[0])
            for link in range(starts[at], starts[at + 1]):
                total = total + weight[link] * values[int(sender[link])]
            values.append(torch.sigmoid(total) if kind[at] == -2 else bend(kind[at], total))
        drawn = values[-out.shape[1] :]
        out[p] = double_cone(*drawn) if len(drawn) == 3 else drawn[0]
