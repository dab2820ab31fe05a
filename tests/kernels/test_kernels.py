"""Compiled kernels equal the plain reference exactly, and the reference equals a dumb loop."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dissect import ops, reference, upsample
from tests.kernels import cases
from tests.kernels.cases import LABEL_SIZES, SHAPES, Chunk, LabelCase, ScanState

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["normal", "relu", "coarse", "odd"]


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.shape == right.shape and torch.equal(left.nan_to_num(nan=-7.5), right.nan_to_num(nan=-7.5))


def validity(images: int, seed: int) -> torch.Tensor:
    return torch.rand(images, generator=torch.Generator().manual_seed(seed)) > 0.2


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_scan_equals_reference(shape: tuple[int, int, int, int], kind: str) -> None:
    keep = max(1, shape[0] * shape[1] * shape[2] // 9)
    states = {name: ScanState(shape[3], keep, keep + 3) for name in ("ops", "reference")}
    for step in range(3):
        values, valid = cases.maps(shape, seed=step, kind=kind), validity(shape[0], step)
        peaks = [
            state.scan(ops.scan if name == "ops" else reference.scan, values, valid, 100 * step)
            for name, state in states.items()
        ]
        assert same(*peaks)
    ours, oracle = states["ops"], states["reference"]
    for name in ("low", "high", "nonfinite", "moments", "histogram", "top_value", "top_image", "top_place"):
        assert same(ours.tensors[name], oracle.tensors[name]), name
    for u in range(shape[3]):
        assert ours.largest(u) == oracle.largest(u)
        assert ours.tensors["bound"][u] <= oracle.tensors["bound"][u]


@pytest.mark.parametrize("function", [ops.scan, reference.scan])
def test_a_scan_without_a_histogram_is_the_same_otherwise(function) -> None:  # type: ignore[no-untyped-def]
    values, valid = cases.maps((4, 7, 5, 65), seed=1, kind="odd"), validity(4, 1)
    states = [ScanState(65, 20, 30, bins=bins) for bins in (0, 2048)]
    peaks = [state.scan(function, values, valid, 0) for state in states]
    assert same(*peaks)
    without, with_bins = (dict(state.tensors) for state in states)
    assert without.pop("histogram").shape == (0, 65)
    assert int(with_bins.pop("histogram").sum()) == int(valid.sum()) * 35 * 65
    for u in range(65):
        assert states[0].largest(u) == states[1].largest(u)
    for name in set(without) - {"tail"}:
        assert same(without[name], with_bins[name]), name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scan_reference_equals_sorting_everything(shape: tuple[int, int, int, int]) -> None:
    keep = max(1, shape[0] * shape[1] * shape[2] // 4)
    state = ScanState(shape[3], keep, keep + 5)
    batches = [cases.maps(shape, seed=step, kind="coarse") for step in range(3)]
    for step, values in enumerate(batches):
        state.scan(reference.scan, values, torch.ones(shape[0], dtype=torch.bool), shape[0] * step)
    everything = np.concatenate([values.numpy() for values in batches])  # [3 B, P, U]
    for u in range(shape[3]):
        flat = sorted(everything[:, :, u].ravel().tolist(), reverse=True)
        assert state.largest(u) == flat[:keep]
        order = sorted(range(len(everything)), key=lambda image: (-everything[image, :, u].max(), image))[:3]
        found = [image for image in state.tensors["top_image"][u].tolist() if image >= 0]
        assert found == order
        for slot, image in enumerate(found):
            assert int(state.tensors["top_place"][u, slot]) == int(everything[image, :, u].argmax())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quantile", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("place", [torch.uint8, torch.int16, torch.int32], ids=str)
def test_gather_and_prune_equal_reference(
    shape: tuple[int, int, int, int], kind: str, quantile: float, place: torch.dtype
) -> None:
    if place == torch.uint8 and shape[1] * shape[2] > 256:
        pytest.skip("more places than a byte can name")
    values = cases.maps(shape, seed=5, kind=kind)
    size = shape[1:3]
    finite = torch.where(values.isfinite(), values, torch.tensor(-math.inf))
    peak = finite.amax(1) if shape[0] else torch.empty(0, shape[3])
    flat = finite.reshape(-1, shape[3])
    loose = flat.sort(0).values[int(quantile * (len(flat) - 1))] if len(flat) else torch.zeros(shape[3])
    tight = flat.sort(0).values[int(0.97 * (len(flat) - 1))] if len(flat) else torch.zeros(shape[3])
    ours = Chunk.gather(ops.gather, values, size, peak, loose, place)
    oracle = Chunk.gather(reference.gather, values, size, peak, loose, place)
    assert all(same(a, b) for a, b in zip(ours.tensors, oracle.tensors))
    direct = Chunk.gather(ops.gather, values, size, peak, tight, place)
    for function in (ops.prune, reference.prune):
        assert all(same(a, b) for a, b in zip(ours.prune(function, size, tight).tensors, direct.tensors))


@pytest.mark.parametrize(("pairs", "nodes"), [(3, 5), (3, 1000), (100, 5)])
def test_gather_reports_what_does_not_fit_and_writes_nothing(pairs: int, nodes: int) -> None:
    values, bound = cases.maps((2, 7, 7, 8), seed=1), torch.full((8,), 1.0)
    needed = Chunk.gather(reference.gather, values, (7, 7), values.amax(1), bound).tensors
    for function in (ops.gather, reference.gather):
        outputs, used = Chunk.room(pairs, nodes)
        function(values, 7, 7, values.amax(1), bound, *outputs, used)
        assert used.tolist() == [len(needed[0]), len(needed[4])]
        assert used[0] > pairs or used[1] > nodes
        assert all(int(tensor.count_nonzero()) == 0 for tensor in outputs)


def test_a_peak_that_promises_too_much_adds_no_pair() -> None:
    """A peak only spares the look at a map: one whose nodes are all at or under the bound is left out."""
    values = torch.tensor([[[1.0, 0.5], [0.0, 2.0]]])  # one image, 2 places, 2 units
    for function in (ops.gather, reference.gather):
        unit, image, start, place, value = Chunk.gather(
            function, values, (1, 2), torch.tensor([[9.0, 2.0]]), torch.tensor([1.0, 1.0])
        ).tensors
        assert (unit.tolist(), image.tolist(), start.tolist()) == ([1], [0], [0, 2])
        assert (place.tolist(), value.tolist()) == ([0, 1], [0.5, 2.0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("label_size", LABEL_SIZES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "relu", "coarse"])
def test_overlap_equals_reference(shape: tuple[int, int, int, int], label_size: tuple[int, int], kind: str) -> None:
    values, size = cases.maps(shape, seed=9, kind=kind), shape[1:3]
    flat = values.reshape(-1, shape[3])
    threshold = flat.sort(0).values[int(0.8 * (len(flat) - 1))] if len(flat) else torch.zeros(shape[3])
    peak = values.amax(1) if shape[0] else torch.empty(0, shape[3])
    chunk = Chunk.gather(ops.gather, values, size, peak, threshold)
    labels, axis = LabelCase.make(shape[0], label_size, seed=3), cases.tables(size, label_size)
    for rule in (0, 1, 2):
        ours = cases.overlap(ops.overlap, chunk, size, axis, threshold, labels, rule)
        oracle = cases.overlap(reference.overlap, chunk, size, axis, threshold, labels, rule)
        assert all(torch.equal(a, b) for a, b in zip(ours, oracle))
    for place in (torch.uint8, torch.int32)[size[0] * size[1] > 256 :]:
        other = Chunk.gather(ops.gather, values, size, peak, threshold, place)
        same_counts = cases.overlap(ops.overlap, other, size, axis, threshold, labels, rule)
        assert all(torch.equal(a, b) for a, b in zip(same_counts, oracle))


def test_overlap_reference_equals_a_loop_over_pixels() -> None:
    shape, label_size = (3, 5, 4, 6), (11, 9)
    values = cases.maps(shape, seed=2)
    threshold = torch.linspace(-0.5, 1.5, 6)
    chunk = Chunk.gather(reference.gather, values, shape[1:3], values.amax(1), threshold)
    labels, axis = LabelCase.make(3, label_size, seed=8), cases.tables(shape[1:3], label_size)
    found, area, mask = cases.overlap(reference.overlap, chunk, shape[1:3], axis, threshold, labels, 0)
    expected = np.zeros((6, cases.LABELS), dtype=np.int64)
    total, by_category = np.zeros(6, dtype=np.int64), np.zeros((6, cases.CATEGORIES), dtype=np.int64)
    f32 = np.float32
    for b in range(3):
        for u in range(6):
            grid = values[b, :, u].numpy().reshape(5, 4)
            for y in range(label_size[0]):
                for x in range(label_size[1]):
                    sy, sx = (y + 0.5) * 5 / 11 - 0.5, (x + 0.5) * 4 / 9 - 0.5
                    y0, x0 = math.floor(sy), math.floor(sx)
                    r0, r1, c0, c1 = (min(max(i, 0), n) for i, n in ((y0, 4), (y0 + 1, 4), (x0, 3), (x0 + 1, 3)))
                    ty, tx = f32(sy - y0) if r1 > r0 else f32(0), f32(sx - x0) if c1 > c0 else f32(0)
                    left = f32(grid[r0, c0] + f32(ty * f32(grid[r1, c0] - grid[r0, c0])))
                    right = f32(grid[r0, c1] + f32(ty * f32(grid[r1, c1] - grid[r0, c1])))
                    corners = grid[[r0, r0, r1, r1], [c0, c1, c0, c1]]
                    value = min(max(f32(left + f32(tx * f32(right - left))), corners.min()), corners.max())
                    if value > threshold[u].item():
                        total[u] += 1
                        numbers = [
                            int(labels.planes[k, y, x]) for k in range(labels.plane_start[b], labels.plane_start[b + 1])
                        ]
                        numbers += labels.scalars[labels.scalar_start[b] : labels.scalar_start[b + 1]].tolist()
                        for number in numbers:
                            expected[u, number] += 1
                        for category in range(cases.CATEGORIES):
                            by_category[u, category] += int(labels.held[b]) >> category & 1
    assert np.array_equal(found.numpy(), expected)
    assert np.array_equal(mask.numpy(), total)
    assert np.array_equal(area.numpy(), by_category)


@pytest.mark.parametrize(("size", "cut", "side"), [((1, 1), (1, 1), 1), ((7, 5), (4, 6), 3), ((13, 11), (9, 2), 0)])
def test_patch_gather_equals_reference_and_a_loop(size: tuple[int, int], cut: tuple[int, int], side: int) -> None:
    generator = torch.Generator().manual_seed(0)
    base, patch = torch.randn(*size, 17, generator=generator), torch.randn(6, side, side, 17, generator=generator)
    origin, start = (torch.randint(-3, 9, (6, 2), generator=generator) for _ in range(2))
    outs = [torch.empty(6, *cut, 17) for _ in range(3)]
    ops.patch_gather(base, patch, origin, start, 0.25, outs[0])
    reference.patch_gather(base, patch, origin, start, 0.25, outs[1])
    for k in range(6):
        for y in range(cut[0]):
            for x in range(cut[1]):
                at = start[k] + torch.tensor([y, x])
                in_patch = at - origin[k]
                if not (0 <= at[0] < size[0] and 0 <= at[1] < size[1]):
                    outs[2][k, y, x] = 0.25
                elif side and int(in_patch.min()) >= 0 and int(in_patch.max()) < side:
                    outs[2][k, y, x] = patch[k, in_patch[0], in_patch[1]]
                else:
                    outs[2][k, y, x] = base[at[0], at[1]]
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


PICTURES = [(0, 3, 4, 4), (1, 1, 1, 1), (2, 3, 1, 9), (2, 3, 9, 1), (3, 2, 8, 17), (2, 3, 31, 40)]


def picture(shape: tuple[int, int, int, int], seed: int) -> torch.Tensor:
    """Byte units with flat places, zero pixels and steep ones."""
    generator = torch.Generator().manual_seed(seed)
    z = (torch.randn(shape, generator=generator) * 60).round()
    z[torch.rand(shape, generator=generator) < 0.2] = 0
    return z


def close(ours: torch.Tensor, oracle: torch.Tensor) -> None:
    scale = float(oracle.abs().max()) if oracle.numel() else 1.0
    torch.testing.assert_close(ours, oracle, rtol=2e-5, atol=2e-6 * scale)


@pytest.mark.parametrize("shape", PICTURES, ids=str)
@pytest.mark.parametrize(("alpha", "beta"), [(6.0, 2.0), (1.0, 1.0), (3.0, 1.5), (2.0, 2.0)])
def test_natural_equals_reference(shape: tuple[int, int, int, int], alpha: float, beta: float) -> None:
    z, scale = picture(shape, 1), (alpha, 60.0**-alpha, beta, 12.0**-beta)
    ours, oracle = ((torch.empty(shape), torch.empty(shape[0], shape[2], 2).double()) for _ in range(2))
    ops.natural(z, *scale, *ours)
    reference.natural(z, *scale, *oracle)
    for a, b in zip(ours, oracle):
        close(a, b)


@pytest.mark.parametrize("shape", PICTURES, ids=str)
@pytest.mark.parametrize("radius", [70.0, 1e6])
def test_descend_equals_reference(shape: tuple[int, int, int, int], radius: float) -> None:
    generator = torch.Generator().manual_seed(2)
    z, gradient = picture(shape, 1), torch.randn(shape, generator=generator)
    rate = torch.rand(shape[0], generator=generator) * 50 + 1
    found = []
    for function in (ops.descend, reference.descend):
        squares, speeds = gradient.square() + 1, gradient.flip(0) * 3
        out, rows = torch.empty(shape), torch.empty(shape[0], shape[2], 2).double()
        function(z, gradient, 6.0, 60.0**-6, 2.0, 12.0**-2, rate, 0.9, 0.8, radius, squares, speeds, out, rows)
        found.append((squares, speeds, out, rows))
    for a, b in zip(*found):
        close(a, b)
    lengths = found[0][2].double().square().sum(1).sqrt()
    assert bool((lengths <= radius).all())
    if z.numel() > 100 and radius == 70:
        assert float(lengths.max()) > 69.99


def test_natural_pictures_are_independent_of_threads_and_of_their_batch() -> None:
    z, gradient = picture((5, 3, 33, 29), 3), torch.randn(5, 3, 33, 29, generator=torch.Generator().manual_seed(4))
    before, found = torch.get_num_threads(), []
    try:
        for threads, size in ((1, 5), (2, 5), (3, 1)):
            torch.set_num_threads(threads)
            parts = []
            for one, slope in zip(z.split(size), gradient.split(size)):
                squares, speeds, out = torch.ones_like(one), torch.zeros_like(one), torch.empty_like(one)
                rows = torch.empty(len(one), 33, 2, dtype=torch.float64)
                rate = torch.full((len(one),), 9.0)
                ops.descend(
                    one, slope, 6.0, 60.0**-6, 2.0, 0.01, rate, 0.9, 0.9, 80.0, squares, speeds, out, rows
                )  # fmt: skip
                parts.append((squares, speeds, out, rows))
            found.append([torch.cat(tensors) for tensors in zip(*parts)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other))


def test_a_picture_that_is_not_finite_shows_in_its_own_rows_alone() -> None:
    z, gradient = picture((2, 3, 6, 7), 5), torch.zeros(2, 3, 6, 7)
    gradient[0, 1, 4, 2] = math.nan
    out, rows = torch.empty_like(z), torch.empty(2, 6, 2, dtype=torch.float64)
    memory = [torch.zeros_like(z) for _ in range(2)]
    ops.descend(z, gradient, 6.0, 60.0**-6, 2.0, 0.01, torch.ones(2), 0.9, 0.9, 160.0, *memory, out, rows)
    assert rows[..., 1].isfinite().tolist() == [[True] * 4 + [False, True], [True] * 6]
    assert bool(rows[..., 0].isfinite().all())
    assert bool(out[1].isfinite().all())


def graphs(count: int, outputs: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Pattern-producing networks of 0 to 20 hidden neurons with links at random, as `render_patterns` takes them."""
    rng = np.random.default_rng(seed)
    kinds, edges, starts, sender, weight = [], [0], [0], [], []
    for _ in range(count):
        hidden = int(rng.integers(0, 21))
        kinds += [-1] * 4 + rng.integers(0, 4, hidden).tolist() + [-2] * outputs
        edges.append(len(kinds))
        for neuron in range(4 + hidden + outputs):
            for other in range(min(neuron, 4 + hidden) if neuron >= 4 else 0):
                if rng.random() < 0.3:
                    sender.append(other)
                    weight.append(rng.uniform(-3, 3))
            starts.append(len(sender))
    return (
        torch.tensor(kinds, dtype=torch.int8), torch.tensor(edges), torch.tensor(starts),
        torch.tensor(sender, dtype=torch.int32), torch.tensor(weight, dtype=torch.float32),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("count", "outputs", "places"), [(0, 3, 5), (1, 1, 1), (7, 3, 255), (9, 1, 600), (30, 3, 1000)]
)
def test_render_patterns_equals_reference(count: int, outputs: int, places: int) -> None:
    inputs = torch.rand(4, places, generator=torch.Generator().manual_seed(1)) * 2 - 1
    graph = graphs(count, outputs, seed=count)
    ours, oracle = (torch.empty(count, outputs, places) for _ in range(2))
    ops.render_patterns(*graph, inputs, ours)
    double = torch.empty(count, outputs, places, dtype=torch.float64)
    reference.render_patterns(*graph[:4], graph[4].double(), inputs.double(), double)
    reference.render_patterns(*graph, inputs, oracle)
    # Sums of up to 72 amplify a rounding through sines of sines: we are as near to the exact picture as torch is.
    slack = (oracle - double).abs().amax((1, 2)) if count else torch.empty(0)
    assert bool(((ours - double).abs().amax((1, 2)) <= 4 * slack + 1e-6).all()) if count else True
    assert bool(((ours >= 0) & (ours <= 1)).all())


def test_patterns_are_independent_of_threads_and_stretches() -> None:
    inputs, graph = torch.rand(4, 777, generator=torch.Generator().manual_seed(2)), graphs(12, 3, seed=5)
    whole = torch.empty(12, 3, 777)
    ops.render_patterns(*graph, inputs, whole)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        parts = []
        for part in inputs.split(100, 1):
            parts.append(torch.empty(12, 3, part.shape[1]))
            ops.render_patterns(*graph, part.contiguous(), parts[-1])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(whole, torch.cat(parts, 2))


def test_sine_and_exponential_are_right_over_their_range() -> None:
    """One hidden neuron that is fed x alone, seen through the output's sigmoid."""
    x = torch.cat([torch.linspace(-2000, 2000, 40001), torch.linspace(-4, 4, 8001)])
    inputs = torch.stack([x, torch.zeros_like(x), torch.zeros_like(x), torch.ones_like(x)])
    for kind, function in ((0, torch.sin), (1, lambda v: v.sigmoid() * 2 - 1), (2, lambda v: (-v * v).exp())):
        graph = (
            torch.tensor([-1] * 4 + [kind, -2], dtype=torch.int8), torch.tensor([0, 6]),
            torch.tensor([0, 0, 0, 0, 0, 1, 2]), torch.tensor([0, 4], dtype=torch.int32), torch.ones(2),
        )  # fmt: skip
        out = torch.empty(1, 1, len(x))
        ops.render_patterns(*graph, inputs, out)
        expected = function(x.double()).sigmoid()
        assert float((out[0, 0].double() - expected).abs().max()) < 2e-7


def test_patterns_whose_links_lead_nowhere_are_refused() -> None:
    if ops.backend()["cpu"] != "compiled":
        pytest.skip("argument checks belong to the compiled kernels")
    kinds, edges, starts = (
        torch.tensor([-1] * 4 + [-2], dtype=torch.int8),
        torch.tensor([0, 5]),
        torch.tensor([0] * 5 + [1]),
    )
    places, out = torch.zeros(4, 2), torch.empty(1, 1, 2)
    with pytest.raises(RuntimeError, match="leads from neuron 4 to 4"):
        ops.render_patterns(kinds, edges, starts, torch.tensor([4], dtype=torch.int32), torch.ones(1), places, out)
    kinds[2] = 1
    with pytest.raises(RuntimeError, match="neuron 2 of pattern 0 has the wrong kind 1"):
        ops.render_patterns(kinds, edges, starts, torch.tensor([0], dtype=torch.int32), torch.ones(1), places, out)


def test_a_value_equal_to_the_threshold_is_outside_the_mask() -> None:
    values = torch.tensor([[[1.0], [1.0], [1.0], [2.0]]])
    threshold = torch.tensor([1.0])
    chunk = Chunk.gather(ops.gather, values, (2, 2), values.amax(1), threshold)
    labels = LabelCase.make(1, (2, 2), seed=0)
    _, _, mask = cases.overlap(ops.overlap, chunk, (2, 2), cases.tables((2, 2), (2, 2)), threshold, labels, 2)
    assert mask.tolist() == [1]


@pytest.mark.parametrize(("sources", "targets"), [(7, 112), (14, 112), (13, 113), (1, 5), (4, 4), (9, 3), (224, 112)])
def test_half_pixel_upsampling_equals_torch(sources: int, targets: int) -> None:
    values = cases.maps((1, sources, sources, 3), seed=4).permute(0, 2, 1).reshape(3, sources, sources)
    ours = reference.upsample(values, *cases.tables((sources, sources), (targets, targets)))
    theirs = torch.nn.functional.interpolate(values[None], (targets, targets), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_anchored_nodes_stand_at_their_pixels() -> None:
    table = upsample.anchored(7, 112, first=8, step=16)
    values = torch.arange(7.0)
    row = values[table.node[:, 0].long()] + table.t * (
        values[table.node[:, 1].long()] - values[table.node[:, 0].long()]
    )
    assert row[[0, 8, 24, 104, 111]].tolist() == [0, 0, 1, 6, 6]
    assert row[16].item() == 0.5


@settings(max_examples=40, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 12), max_size=4), threads=st.sampled_from([1, 2, 3]), kind=st.sampled_from(KINDS))
def test_scan_is_independent_of_cuts_and_threads(cuts: list[int], threads: int, kind: str) -> None:
    values = cases.maps((12, 3, 5, 70), seed=6, kind=kind)
    valid = validity(12, 1)
    whole, parts = ScanState(70, 9, 12), ScanState(70, 9, 30)
    whole.scan(ops.scan, values, valid, 0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        edges = [0, *sorted(cuts), 12]
        for first, last in zip(edges, edges[1:]):
            parts.scan(ops.scan, values[first:last].contiguous(), valid[first:last], first)
    finally:
        torch.set_num_threads(before)
    for name in ("low", "high", "nonfinite", "moments", "histogram", "top_value", "top_image", "top_place"):
        assert same(whole.tensors[name], parts.tensors[name]), name
    assert all(whole.largest(u) == parts.largest(u) for u in range(70))


def test_a_histogram_counts_past_sixteen_bits() -> None:
    """Narrow counters stand before the table; a unit may be constant over more places than they can tell."""
    state = ScanState(70, 9, 12)
    values = torch.ones(2, 257 * 257, 70)
    values[..., 1] = 2
    state.scan(ops.scan, values, torch.tensor([True, True]), 0)
    histogram = state.tensors["histogram"]
    places = 2 * 257 * 257
    assert histogram.sum(0).tolist() == [places] * 70
    assert histogram.amax(0).tolist() == [places] * 70
    assert (histogram[:, 0] != histogram[:, 1]).any()


@pytest.mark.parametrize("name", ops.OPS)
def test_the_fallback_has_the_schema_of_the_compiled_op(name: str) -> None:
    compiled = getattr(torch.ops.dissect, name).default._schema
    assert str(compiled) == str(torch._C.parse_schema(f"dissect::{name}{ops._SCHEMAS[name]}"))


def test_without_compiled_kernels_the_reference_answers() -> None:
    code = (
        "import torch; from dissect import ops; from tests.kernels import cases as c;"
        "v = c.maps((2, 3, 3, 4), 1); t = torch.full((4,), 0.5);"
        "k = c.Chunk.gather(ops.gather, v, (3, 3), v.amax(1), t);"
        "l = c.LabelCase.make(2, (6, 6), 1); r = c.overlap(ops.overlap, k, (3, 3), c.tables((3, 3), (6, 6)), t, l, 0);"
        "print(ops.backend()['cpu'], int(r[0].sum()))"
    )
    answers = set()
    for wish in ("reference", "compiled"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT, env={**os.environ, "DISSECT_KERNELS": wish}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        half, total = done.stdout.split()
        assert half == wish
        answers.add(total)
    assert len(answers) == 1


PLACES = (torch.uint8, torch.int16, torch.int32)


@pytest.mark.parametrize("shape", cases.SHAPES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("widths", [(1, 1, 1), (2, 1, 2), (4, 2, 4), (1, 4, 2)])
def test_pack_and_unpack_equal_reference(
    shape: tuple[int, int, int, int], place: torch.dtype, widths: tuple[int, int, int]
) -> None:
    if shape[1] * shape[2] > 255 and (place == torch.uint8 or widths[2] == 1):
        pytest.skip("places or their number do not fit")
    values = cases.maps(shape, seed=7)
    size = shape[1], shape[2]
    chunk = Chunk.gather(ops.gather, values, size, values.amax(1), torch.full(shape[3:], 0.5), place)
    pairs, nodes = len(chunk.tensors[0]), len(chunk.tensors[4])
    length = reference.packed_spans(pairs, nodes, (*widths, place.itemsize))[-1].stop
    ours, oracle = torch.full((length,), 77, dtype=torch.uint8), torch.full((length,), 77, dtype=torch.uint8)
    ops.pack(*chunk.tensors, *widths, ours)
    reference.pack(*chunk.tensors, *widths, oracle)
    assert torch.equal(ours, oracle)
    for function in (ops.unpack, reference.unpack):
        room = [torch.full_like(tensor, 9) for tensor in chunk.tensors[:3]]
        function(ours, nodes, *widths, place.itemsize, *room)
        for found, expected in zip(room, chunk.tensors):
            assert torch.equal(found, expected)


def test_numbers_come_back_from_as_few_bytes_as_they_need() -> None:
    unit = torch.tensor([0, 255, 256, 65535], dtype=torch.int32)
    image = torch.tensor([255, 0, 1, 2], dtype=torch.int32)
    start = torch.tensor([0, 0, 40_000, 40_001, 80_001], dtype=torch.int32)
    place = torch.zeros(80_001, dtype=torch.uint8)
    value = torch.linspace(-1, 1, 80_001)
    out = torch.zeros(reference.packed_spans(4, 80_001, (2, 1, 2, 1))[-1].stop, dtype=torch.uint8)
    for pack, unpack in ((ops.pack, ops.unpack), (reference.pack, reference.unpack)):
        pack(unit, image, start, place, value, 2, 1, 2, out.zero_())
        room = torch.empty(4, dtype=torch.int32), torch.empty(4, dtype=torch.int32), torch.empty(5, dtype=torch.int32)
        unpack(out, 80_001, 2, 1, 2, 1, *room)
        assert [tensor.tolist() for tensor in room] == [unit.tolist(), image.tolist(), start.tolist()]
        assert torch.equal(out[: 4 * 80_001].view(torch.float32), value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": torch.zeros(39, dtype=torch.uint8)}, r"out \(byte\) must have shape \[34\], got \[39\]"),
        ({"unit_bytes": 3}, "unit_bytes must be 1, 2 or 4, got 3"),
        ({"out": torch.zeros(50, dtype=torch.uint8)[3:37]}, r"out \(byte\) must begin at a multiple of 8"),
    ],
)
def test_bytes_that_hold_no_chunk_are_refused(change: dict[str, Any], message: str) -> None:
    if ops.backend()["cpu"] != "compiled":
        pytest.skip("argument checks belong to the compiled kernels")
    one, start = torch.zeros(1, dtype=torch.int32), torch.tensor([0, 2], dtype=torch.int32)
    chosen = {"unit_bytes": 1, "out": torch.zeros(34, dtype=torch.uint8)} | change
    place, value = torch.zeros(2, dtype=torch.uint8), torch.zeros(2)
    with pytest.raises(RuntimeError, match=message):
        ops.pack(one, one, start, place, value, chosen["unit_bytes"], 1, 1, chosen["out"])
    if "unit_bytes" not in change:
        with pytest.raises(RuntimeError, match=message.replace("out", "data", 1)):
            ops.unpack(chosen["out"], 2, 1, 1, 1, 1, one.clone(), one.clone(), start.clone())


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (3, 0), (5, 51), (130, 672)])
def test_normalise_equals_reference(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    mean, std = (torch.rand(shape[1], generator=generator) * 255 + 0.01 for _ in range(2))
    ours, oracle = torch.empty(shape), torch.empty(shape)
    ops.normalise(pixels, mean, std, ours)
    reference.normalise(pixels, mean, std, oracle)
    assert torch.equal(ours, oracle)


def ranked(function, peaks: torch.Tensor, held: list[list[int]], primary: list[int]) -> torch.Tensor:  # type: ignore[no-untyped-def]
    start = torch.tensor([0] + [len(one) for one in held]).cumsum(0)
    numbers = torch.tensor([n for one in held for n in one], dtype=torch.int32)
    precision = torch.empty(len(peaks), len(primary), dtype=torch.float64)
    function(peaks, start, numbers, torch.tensor(primary, dtype=torch.int16), precision)
    return precision


@given(
    st.integers(0, 30),
    st.integers(0, 4),
    st.integers(1, 8),
    st.sampled_from(["normal", "coarse", "relu"]),
    st.randoms(),
)
@settings(max_examples=60, deadline=None)
def test_ranking_equals_reference(images: int, units: int, labels: int, kind: str, random) -> None:  # type: ignore[no-untyped-def]
    peaks = cases.maps((images, 1, 1, units), seed=random.randrange(1000), kind=kind)[:, 0].T.contiguous()
    held = [sorted(random.sample(range(labels), random.randrange(labels + 1))) for _ in range(images)]
    primary = [random.randrange(-1, 3) for _ in range(labels)]
    assert same(ranked(ops.ranking, peaks, held, primary), ranked(reference.ranking, peaks, held, primary))


def test_ranking_by_hand() -> None:
    """Images 0 and 2 hold concept 1; image 3 holds nothing of its category; -0 and 0 are one peak."""
    held = [[1], [2], [1, 2], [3], [2]]
    peaks = torch.tensor([[4.0, 3, 2, 9, 1], [1, 1, 1, 1, 1], [0.0, 5, -0.0, 5, -1], [-math.inf, 1, 2, 3, 4]])
    found = ranked(ops.ranking, peaks, held, [-1, 0, 0, 1])
    assert found[:, 1].tolist() == [(1 + 2 / 3) / 2, 2 / 4, 2 / 3, (1 / 2 + 2 / 4) / 2]
    assert found[:, 3].tolist() == [1, 1, 1, 1]
    assert found[:, 0].isnan().all()


def test_ranking_refuses_labels_outside_the_table() -> None:
    if ops.backend()["cpu"] != "compiled":
        pytest.skip("argument checks belong to the compiled kernels")
    with pytest.raises(RuntimeError, match=r"numbers must be labels, 0 to 1, got 2"):
        ranked(ops.ranking, torch.zeros(1, 1), [[2]], [0, 0])
    start, table = torch.tensor([0, 2, 1]), torch.zeros(1, dtype=torch.int16)
    with pytest.raises(RuntimeError, match=r"start \(image \+ 1\) must rise from 0"):
        ops.ranking(torch.zeros(1, 2), start, torch.zeros(1, dtype=torch.int32), table, torch.empty(1, 1).double())


@pytest.mark.parametrize("name", ops.OPS)
def test_opcheck(name: str) -> None:
    values, threshold = cases.maps((2, 3, 3, 4), seed=1), torch.full((4,), 0.5)
    chunk = Chunk.gather(ops.gather, values, (3, 3), values.amax(1), threshold)
    outputs, used = Chunk.room(8, 80)
    spans = reference.packed_spans(len(chunk.tensors[0]), len(chunk.tensors[4]), (1, 1, 1, 2))
    packed = torch.zeros(spans[-1].stop, dtype=torch.uint8)
    labels, axis = LabelCase.make(2, (6, 6), seed=1), cases.tables((3, 3), (6, 6))
    totals = (torch.zeros(4, cases.LABELS, dtype=torch.int64), torch.zeros(4, cases.CATEGORIES, dtype=torch.int64))
    arguments = {
        "scan": (values, validity(2, 0), 0, 3, *ScanState(4, 3, 6).tensors.values(), torch.empty(2, 4)),
        "gather": (values, 3, 3, values.amax(1), threshold, *outputs, used),
        "prune": (*chunk.tensors, 3, 3, threshold, *outputs, used),
        "pack": (*chunk.tensors, 1, 1, 1, packed),
        "unpack": (packed, len(chunk.tensors[4]), 1, 1, 1, 2, *(torch.empty_like(t) for t in chunk.tensors[:3])),
        "overlap": (
            *chunk.tensors, 3, 3, *axis, threshold, *labels.fields(), 0, *totals, torch.zeros(4, dtype=torch.int64),
        ),
        "normalise": (
            torch.randint(0, 256, (4, 6), dtype=torch.uint8), torch.rand(6), torch.rand(6) + 1, torch.empty(4, 6),
        ),
        "ranking": (
            torch.randn(3, 2), torch.tensor([0, 1, 3]), torch.tensor([1, 0, 1], dtype=torch.int32),
            torch.zeros(2, dtype=torch.int16), torch.empty(3, 2, dtype=torch.float64),
        ),
        "patch_gather": (
            torch.randn(5, 4, 3), torch.randn(2, 2, 2, 3), torch.tensor([[0, 1], [3, 2]]),
            torch.tensor([[-1, 0], [2, 2]]),
            0.5, torch.empty(2, 4, 3, 3),
        ),
        "natural": (
            torch.randn(2, 3, 4, 5), 6.0, 1e-3, 2.0, 1e-2, torch.empty(2, 3, 4, 5), torch.empty(2, 4, 2).double(),
        ),
        "descend": (
            torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5), 6.0, 1e-3, 2.0, 1e-2, torch.ones(2), 0.9, 0.9, 160.0,
            torch.ones(2, 3, 4, 5), torch.zeros(2, 3, 4, 5), torch.empty(2, 3, 4, 5), torch.empty(2, 4, 2).double(),
        ),
        "render_patterns": (*graphs(3, 3, seed=1), torch.rand(4, 9), torch.empty(3, 3, 9)),
    }  # fmt: skip
    torch.library.opcheck(getattr(torch.ops.dissect, name), arguments[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"maps": torch.zeros(2, 8, 4)},
            r"maps \(image, place, unit\) must have shape \[any, 9, any\], got \[2, 8, 4\]",
        ),
        ({"bound": torch.zeros(5)}, r"bound \(unit\) must have shape \[4\], got \[5\]"),
        ({"peak": torch.zeros(2, 4, dtype=torch.float64)}, r"peak \(image, unit\) has the wrong dtype: expected Float"),
        ({"maps": torch.zeros(2, 4, 9).transpose(1, 2)}, r"maps \(image, place, unit\) must be contiguous"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, torch.Tensor], message: str) -> None:
    if ops.backend()["cpu"] != "compiled":
        pytest.skip("argument checks belong to the compiled kernels")
    given_arguments = {"maps": torch.zeros(2, 9, 4), "peak": torch.zeros(2, 4), "bound": torch.zeros(4)} | change
    outputs, used = Chunk.room(1, 1)
    with pytest.raises(RuntimeError, match=message):
        ops.gather(given_arguments["maps"], 3, 3, given_arguments["peak"], given_arguments["bound"], *outputs, used)


def test_labels_outside_the_table_are_refused() -> None:
    values, threshold = cases.maps((1, 2, 2, 1), seed=1), torch.zeros(1)
    if ops.backend()["cpu"] != "compiled":
        pytest.skip("argument checks belong to the compiled kernels")
    chunk = Chunk.gather(ops.gather, values, (2, 2), values.amax(1), threshold)
    labels = LabelCase.make(1, (2, 2), seed=0)
    broken = LabelCase(
        torch.full((1, 2, 2), cases.LABELS, dtype=torch.int16),
        torch.tensor([0, 1], dtype=torch.int32),
        *labels.fields()[2:],
    )
    with pytest.raises(RuntimeError, match=r"planes hold label 11, but there are only labels 0\.\.10"):
        cases.overlap(ops.overlap, chunk, (2, 2), cases.tables((2, 2), (2, 2)), threshold, broken, 0)


@pytest.mark.parametrize(
    ("start", "place", "message"),
    [
        ([0, 1], [4], "node_place holds 4, but maps have 4 places"),
        ([0, 2], [0], r"pair_start \(pair \+ 1\) must ascend inside 0\.\.1"),
    ],
)
def test_chunks_that_leave_their_map_are_refused(start: list[int], place: list[int], message: str) -> None:
    if ops.backend()["cpu"] != "compiled":
        pytest.skip("argument checks belong to the compiled kernels")
    i32 = torch.int32
    chunk = Chunk(
        (torch.zeros(1, dtype=i32), torch.zeros(1, dtype=i32), torch.tensor(start, dtype=i32),
         torch.tensor(place, dtype=torch.int16), torch.ones(1))
    )  # fmt: skip
    with pytest.raises(RuntimeError, match=message):
        cases.overlap(
            ops.overlap, chunk, (2, 2), cases.tables((2, 2), (2, 2)), torch.zeros(1), LabelCase.make(1, (2, 2), 0), 0
        )
    with pytest.raises(RuntimeError, match=message):
        chunk.prune(ops.prune, (2, 2), torch.zeros(1))
