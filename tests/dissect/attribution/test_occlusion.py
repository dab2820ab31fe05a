"""Occlusion: windows, occluders, and the incremental pass against one masked forward after the other."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from dissect.attribution.network import OUTPUT, Network
from dissect.attribution.occlusion.engine import occluded_outputs, prepare_engine
from dissect.attribution.occlusion.linear import linear
from dissect.attribution.occlusion.occlude import occlude, occlude_approximately
from dissect.attribution.occlusion.occluders import (
    OCCLUDERS,
    Blur,
    Colour,
    Inpaint,
    Noise,
    find_occluder,
    gaussian_blur,
)
from dissect.attribution.occlusion.propagate import Propagation
from dissect.attribution.occlusion.sensitivity import occluder_sensitivity
from dissect.attribution.occlusion.tracing import Untraceable, trace
from dissect.attribution.occlusion.windows import grouped, make_windows
from dissect.attribution.targets import Target, class_target, unit_target
from dissect.errors import SpecError
from tests.dissect.attribution import nets


def brute(network: Network, x: Tensor, target: Target, patch: int, stride: int, colour: float = 0.5) -> Tensor:
    """One masked forward after the other, written without anything of the product."""
    height, width = x.shape[2:]

    def starts(length: int) -> list[int]:
        found = [0]
        while found[-1] + patch < length and found[-1] + stride < length:
            found.append(found[-1] + stride)
        return found

    scores = []
    with torch.no_grad():
        for top, left in itertools.product(starts(height), starts(width)):
            masked = x.clone()
            masked[:, :, top : top + patch, left : left + patch] = (colour - 0.5) / 0.25
            scores.append(target.score(read(network, masked, target.layer))[0])
    return torch.stack(scores)


def read(network: Network, x: Tensor, layer: str) -> Tensor:
    """What a layer returns, copied before anything can overwrite it."""
    got: list[Tensor] = []
    with network.named[layer].register_forward_hook(lambda module, inputs, output: got.append(output.clone())):
        network.module(x)
    return got[-1]


def both(
    module: nn.Module, x: Tensor, target: Target | None = None, patch: int = 4, stride: int = 3
) -> tuple[Tensor, Tensor, dict]:
    network = nets.wrap(module)
    target = target or class_target(0)
    found = occlude(network, x, target, patch, stride, "0.3", value="score", engine="incremental", batch=9)
    assert not any("missed" in note for note in found.notes)
    return found.values.flatten(), brute(network, x, target, patch, stride, 0.3), found.extra


def sequence(*parts: nn.Module) -> nn.Module:
    return nets.seeded(nn.Sequential(*parts))


CASES = {
    "padding 0": sequence(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)),
    "padding 1": sequence(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)),
    "padding 2": sequence(nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(True), nn.Conv2d(4, 3, 3, padding=2)),
    "same": sequence(nn.Conv2d(3, 4, 3, padding="same"), nn.ReLU()),
    "stride 2": sequence(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, stride=2)),
    "stride beyond kernel": sequence(nn.Conv2d(3, 4, 1, stride=3), nn.ReLU(), nn.Conv2d(4, 3, 2, stride=3)),
    "dilation": sequence(nn.Conv2d(3, 4, 3, dilation=2, padding=2), nn.ReLU(), nn.Conv2d(4, 3, 3, dilation=3)),
    "groups": sequence(nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, groups=3, padding=1), nn.ReLU()),
    "oblong": sequence(nn.Conv2d(3, 4, (1, 5), padding=(0, 2), stride=(1, 2)), nn.ReLU(), nn.Conv2d(4, 3, (3, 1))),
    "max pool": sequence(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3, padding=1)),
    "overlapping pool": sequence(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, ceil_mode=True)),
    "dilated pool": sequence(nn.MaxPool2d(3, 1, 1, dilation=1), nn.MaxPool2d(2, 1, dilation=2), nn.Conv2d(3, 3, 3)),
    "average pool": sequence(nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 2, 1), nn.ReLU(), nn.AvgPool2d(2)),
    "odd average pool": sequence(nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.ReLU()),
    "ceil average pool": sequence(nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 2, ceil_mode=True), nn.ReLU()),
    "batch norm": sequence(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(True), nn.Conv2d(4, 3, 3)),
    "response norm": sequence(nn.Conv2d(3, 6, 3, padding=1), nn.LocalResponseNorm(3), nn.ReLU()),
    "adaptive pool": sequence(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(5), nn.ReLU()),
    "adaptive max": sequence(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveMaxPool2d(5), nn.AdaptiveMaxPool2d(1)),
    "uneven adaptive pool": sequence(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(7), nn.ReLU()),
    "reflected padding": sequence(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
}  # fmt: skip


class Heads(nn.Module):
    """Flatten and two linear maps behind a little net."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.pool = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.MaxPool2d(2)
        self.drop, self.one, self.two = nn.Dropout(), nn.Linear(4 * 100, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu_(self.norm(self.conv(x))))
        x = x.view(x.size(0), -1)
        return self.two(self.drop(F.relu(self.one(x))))


class Squeeze(nn.Module):
    """Squeeze and excitation: a global branch that scales the whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x * torch.sigmoid(self.fc(F.adaptive_avg_pool2d(x, 1)))
        return self.last(F.relu(x).mean([2, 3]))


WHOLE = {**nets.STRUCTURES, "flatten": Heads, "squeeze": Squeeze}
EVERY = {**CASES, **{name: nets.seeded(make()) for name, make in WHOLE.items()}}
# Steps whose results are no binary fractions: thirds, square roots, logistic curves.
INEXACT = {
    "average pool", "odd average pool", "ceil average pool", "uneven adaptive pool", "batch norm", "response norm",
    "residual", "flatten", "squeeze",
}  # fmt: skip


def gap(module: nn.Module, x: Tensor, patch: int, stride: int) -> tuple[float, float]:
    """(largest difference over all windows and all values of the output, largest of these values) between the
    incremental pass and the module on images masked by hand, with 1 in the window."""
    network, side = nets.wrap(module), x.shape[2]
    windows, light = make_windows(side, side, patch, stride), find_occluder("0.75")
    engine = prepare_engine(network, x, OUTPUT, "incremental")
    worst, top, seen = 0.0, 0.0, set()
    for chosen, out in occluded_outputs(network, x, class_target(0), windows, light, engine, 9):
        images = x.repeat(len(chosen), 1, 1, 1)
        for k, window in enumerate(chosen.tolist()):
            (top_, left), (bottom, right) = windows.low[window].tolist(), windows.high[window].tolist()
            images[k, :, top_:bottom, left:right] = 1
        expected = module(images)
        assert out.shape == expected.shape
        worst, top = max(worst, float((out - expected).abs().max())), max(top, float(expected.abs().max()))
        seen |= set(chosen.tolist())
    assert seen == set(range(len(windows)))
    assert (windows.low.min(), windows.high.max()) == (0, side)  # every border is touched
    return worst, top


@pytest.mark.parametrize(("patch", "stride"), [(4, 3), (1, 19), (9, 4), (19, 1)])
@pytest.mark.parametrize("name", EVERY)
def test_every_value_is_that_of_the_masked_forward(name: str, patch: int, stride: int) -> None:
    worst, top = gap(EVERY[name], nets.image(side=20), patch, stride)
    assert worst <= 1e-12 * top
    worst, top = gap(copy.deepcopy(EVERY[name]).float(), nets.image(side=20).float(), patch, stride)
    assert worst <= 1e-4 * top


@pytest.mark.parametrize(("patch", "stride"), [(4, 3), (1, 15), (9, 4), (15, 1)])
@pytest.mark.parametrize("name", sorted(set(EVERY) - INEXACT))
def test_no_bit_differs_where_no_sum_is_rounded(name: str, patch: int, stride: int) -> None:
    """Libraries add up a convolution in an order that depends on its size. Whole numbers stay exact in any order, so
    what is left is whether the right values were gathered."""
    module = copy.deepcopy(EVERY[name])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_((parameter * 8).round())
    worst, top = gap(module, (nets.image(side=16) * 4).round(), patch, stride)
    assert worst == 0 < top


@pytest.mark.parametrize("name", WHOLE)
def test_whole_networks_equal_the_masked_forward(name: str) -> None:
    module, x = nets.seeded(WHOLE[name]()), nets.image(side=20)
    found, expected, extra = both(module, x)
    assert extra["engine"] == "incremental"
    assert extra["incremental_steps"] >= (1 if name == "squeeze" else 2)
    assert float((found - expected).abs().max() / module(x).abs().max()) <= 1e-12


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_random_stacks_equal_the_masked_forward(data: st.DataObject) -> None:
    parts: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
    for _ in range(data.draw(st.integers(1, 4))):
        kernel, stride = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
        if data.draw(st.booleans()):
            parts += [
                nn.Conv2d(3, 3, kernel, stride, data.draw(st.integers(0, 2)), data.draw(st.integers(1, 2))),
                nn.ReLU(True),
            ]
        else:
            parts.append(
                nn.MaxPool2d(kernel, stride, data.draw(st.integers(0, kernel // 2)), ceil_mode=data.draw(st.booleans()))
            )
    module = nets.seeded(nn.Sequential(*parts), data.draw(st.integers(0, 99)))
    height, width = data.draw(st.integers(16, 24)), data.draw(st.integers(16, 24))
    x = torch.randn(1, 3, height, width, dtype=torch.float64)
    try:
        shape = module(x).shape
    except RuntimeError:
        return
    target = unit_target(OUTPUT, 0, (shape[2] // 2, shape[3] // 2))
    found, expected, _ = both(module, x, target, data.draw(st.integers(1, 9)), data.draw(st.integers(1, 7)))
    assert float((found - expected).abs().max()) <= 1e-12 * max(1.0, float(expected.abs().max()))


SIDES = {
    "one a unit": (4, 1, 1), "one a unit and image": (1, 4, 1, 1), "one a place": (1, 1, 10, 10),
    "one a place and unit": (1, 4, 10, 10), "plane": (10, 10), "column": (10,), "one": (1,), "number": (),
}  # fmt: skip


class Sides(nn.Module):
    """Sums and products with constants of every shape that may be broadcast over units or places, and functions."""

    def __init__(self, side: str) -> None:
        super().__init__()
        self.conv, self.depth = nn.Conv2d(3, 4, 3, stride=2, padding=1), StochasticDepth(0.5, "row")
        self.side = nn.Parameter(torch.zeros(SIDES[side]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.side + self.depth(self.conv(x))
        x = torch.mul(x, other=self.side) - x
        x = torch.cat(tensors=[x, x * 2], dim=-3)
        return F.adaptive_max_pool2d(F.pad(x, (1, 1, 1, 1)), 4)


@pytest.mark.parametrize("side", SIDES)
def test_sums_with_constants(side: str) -> None:
    module, x = nets.seeded(Sides(side)), nets.image(side=20)
    worst, top = gap(module, x, 4, 3)
    assert worst <= 1e-12 * top
    steps = occlude(nets.wrap(module), x, unit_target(OUTPUT, 0), 4, 3).extra["incremental_steps"]
    assert steps == (2 if side in ("plane", "column") else 7)  # those lie in the memory of no map: dense behind them


def test_a_patch_over_most_of_the_map_goes_dense() -> None:
    network, x = nets.wrap(CASES["padding 1"]), nets.image(side=20)
    target = unit_target("2", 0, "sum")
    steps = [occlude(network, x, target, patch, 20).extra["incremental_steps"] for patch in (2, 19)]
    assert steps == [3, 0]


def test_targets_inside_the_network() -> None:
    module, x = nets.seeded(nets.Residual()), nets.image(side=20)
    for target in (unit_target("b", 2), unit_target("norm", 1, "sum"), unit_target("pool", 3)):
        found, expected, _ = both(module, x, target)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


def test_a_linear_model_gives_weights_times_change_and_a_whole_window_the_baseline() -> None:
    module, x = nets.seeded(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))), nets.image(side=8)
    weights = module[1].weight[0].view(3, 8, 8)
    found = occlude(nets.wrap(module), x, class_target(0), 4, 4).values[0, 0]
    expected = (weights * x[0]).unflatten(1, (2, 4)).unflatten(3, (2, 4)).sum((0, 2, 4))
    torch.testing.assert_close(found, expected.detach())
    whole = occlude(nets.wrap(module), x, class_target(0), 8, 8, value="score")
    torch.testing.assert_close(whole.values.flatten(), module(torch.zeros_like(x))[:, 0].detach())


def test_drop_and_score_and_the_most_probable_class() -> None:
    network, x = nets.wrap(nets.seeded(nets.Residual())), nets.image(side=20, count=2)
    drop, score = (occlude(network, x, class_target(1), 5, 5, value=v) for v in ("drop", "score"))
    torch.testing.assert_close(drop.values, drop.score.view(2, 1, 1, 1) - score.values)
    dense = occlude(network, x, class_target(1), 5, 5, engine="dense")
    assert torch.equal(drop.extra["outputs_class"], dense.extra["outputs_class"])
    assert drop.extra["outputs_class"].shape == (2, 4, 4)
    assert dense.extra["engine"] == "dense"


def test_batches_and_groups_do_not_change_the_result() -> None:
    network, x = nets.wrap(nets.seeded(nets.Residual())), nets.image(side=20)
    results = [occlude(network, x, class_target(1), 4, 2, batch=batch).values for batch in (1, 7, 64, 1000)]
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-12, atol=1e-13)


def test_windows_cover_the_border_and_are_averaged() -> None:
    windows = make_windows(10, 7, 4, 3)
    assert windows.grid == (3, 2)
    assert windows.low[:, 0].unique().tolist() == [0, 3, 6]
    assert windows.high.amax(0).tolist() == [10, 7]
    values = torch.arange(len(windows), dtype=torch.float64)
    total, count = np.zeros((10, 7)), np.zeros((10, 7))
    for k in range(len(windows)):
        (top, left), (bottom, right) = windows.low[k].tolist(), windows.high[k].tolist()
        total[top:bottom, left:right] += k
        count[top:bottom, left:right] += 1
    np.testing.assert_allclose(windows.spread(values).numpy(), total / count)
    cut = make_windows(10, 10, 4, 4)
    assert cut.low[-1].tolist() == [8, 8]
    assert cut.origin[-1].tolist() == [6, 6]
    assert cut.inside()[-1].sum() == 4
    apart = make_windows(9, 9, 2, 7)
    assert float(apart.spread(torch.ones(len(apart)))[4, 4]) == 0


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_groups_hold_every_window_once(rows: int, columns: int, batch: int) -> None:
    groups = grouped(torch.rand(max(rows, columns), 2), (rows, columns), batch)
    assert torch.cat(groups).sort().values.tolist() == list(range(rows * columns))


def test_occluders_by_their_definitions() -> None:
    network = Network(nets.seeded(nets.Residual()), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    x, windows = nets.image(side=12), make_windows(12, 12, 4, 4)

    def contents(occluder: object) -> Tensor:
        return find_occluder(occluder).contents(network, x, windows, 0)  # type: ignore[arg-type]

    grey = contents("grey")[3, :, 1, 2]
    torch.testing.assert_close(grey, torch.tensor([0.1 / 0.2, 0.0, -0.1 / 0.3], dtype=torch.float64))
    assert float(contents("mean").abs().max()) == 0
    torch.testing.assert_close(
        network.pixels(contents("0.1,0.9,0.4")[:1])[0, :, 0, 0], torch.tensor([0.1, 0.9, 0.4], dtype=torch.float64)
    )
    torch.testing.assert_close(contents("local-mean")[4, :, 0, 0], x[0, :, 4:8, 4:8].mean((1, 2)))
    assert torch.equal(contents("neighbour")[0], x[0, :, 0:4, 4:8])
    assert torch.equal(contents("neighbour")[2], x[0, :, 0:4, 4:8])
    assert torch.equal(contents(Blur(2.0))[5], gaussian_blur(x, 2.0)[0, :, 4:8, 8:12])
    noise = network.pixels(contents(Noise(2, 7)))
    assert 0 <= float(noise.min()) <= float(noise.max()) <= 1
    assert torch.equal(contents(Noise(2, 7)), contents(Noise(2, 7)))
    painted = contents(Inpaint(lambda image, box: image * 0 + box[0]))
    assert float(painted[-1].min()) == 8
    with pytest.raises(SpecError, match="occluder 'fog' is unknown"):
        contents("fog")
    with pytest.raises(SpecError, match="2 values for 3"):
        contents("0.1,0.2")
    with pytest.raises(SpecError, match="unknown"):
        Colour(0.5).contents(Network(network.module), x, windows, 0)
    with pytest.raises(SpecError, match="no room beside"):
        find_occluder("neighbour").contents(network, x, make_windows(12, 12, 8, 8), 0)


def test_blur_keeps_constants_and_matches_a_direct_sum() -> None:
    assert torch.allclose(
        gaussian_blur(torch.full((1, 2, 3, 4), 0.7, dtype=torch.float64), 5.0), torch.tensor(0.7, dtype=torch.float64)
    )
    x = nets.image(side=9)
    weights = torch.exp(-(torch.arange(-3.0, 4.0, dtype=torch.float64) ** 2) / 2)
    weights /= weights.sum()
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (3, 3), (3, 3)), mode="symmetric"))
    expected = F.conv2d(padded, (weights[:, None] * weights).expand(3, 1, 7, 7), groups=3)
    torch.testing.assert_close(gaussian_blur(x, 1.0), expected)


@pytest.mark.parametrize("occluder", OCCLUDERS)
def test_every_occluder_is_incremental_and_equals_dense(occluder: str) -> None:
    network, x = nets.wrap(nets.seeded(nets.Residual())), nets.image(side=16)
    one, other = (
        occlude(network, x, class_target(0), 4, 3, occluder, engine=e).values for e in ("incremental", "dense")
    )
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_sensitivity_to_the_occluder() -> None:
    network, x = nets.wrap(nets.seeded(nets.Residual())), nets.image(side=16)
    found = occluder_sensitivity(network, x, class_target(0), ("grey", "0.5", "white"), patch=4, stride=4)
    assert found.correlation.shape == (1, 3, 3)
    assert float(found.correlation[0, 0, 1]) == pytest.approx(1)
    assert found.json()["agreement"][0] == pytest.approx(float((1 + 2 * found.correlation[0, 0, 2]) / 3))
    with pytest.raises(SpecError, match="at least 2"):
        occluder_sensitivity(network, x, class_target(0), ("grey",))


def test_approximate_mode_tells_its_error() -> None:
    network, x = nets.wrap(CASES["padding 1"]), nets.image(side=24)
    target = unit_target("2", 0, "sum")
    settings = {"patch": 4, "stride": 4}
    rough = occlude_approximately(network, x, target, cap=0.2, sample=36, **settings)
    exact = occlude(network, x, target, **settings)
    gap = (rough.values - exact.values).abs()
    assert float(gap.max()) > 0
    assert rough.extra["error"]["largest"] == pytest.approx(float(gap.max()))
    assert rough.extra["error"]["mean"] == pytest.approx(float(gap.mean()))
    assert any("approximate" in note for note in rough.notes)
    same = occlude_approximately(network, x, target, cap=1.0, sample=9, **settings)
    torch.testing.assert_close(same.values, exact.values)


class Branches(nn.Module):
    """Control flow on values, which no trace can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if float(x.mean()) > 0:
            x = -x
        return x.mean((2, 3))


def test_networks_that_cannot_be_traced_go_dense_with_the_reason() -> None:
    network, x = nets.wrap(nets.seeded(Branches())), nets.image(side=10)
    found = occlude(network, x, class_target(0), 4, 3)
    assert found.extra["engine"] == "dense"
    assert any("cannot be traced" in note for note in found.notes)
    torch.testing.assert_close(found.values.flatten(), found.score - brute(network, x, class_target(0), 4, 3))
    with pytest.raises(SpecError, match="cannot be occluded incrementally"):
        occlude(network, x, class_target(0), 4, 3, engine="incremental")


def test_an_in_place_write_into_a_view_is_not_traced() -> None:
    class View(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.same = nn.Conv2d(3, 2, 3), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return F.relu_(self.same(x)) + x

    with pytest.raises(Untraceable, match="writes in place into a view"):
        trace(nets.seeded(View()), OUTPUT)


def test_a_wrong_incremental_pass_is_caught_and_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = nets.wrap(nets.seeded(nets.Residual())), nets.image(side=16)
    right = occlude(network, x, class_target(0), 4, 3, engine="dense").values
    honest = Propagation.tail
    monkeypatch.setattr(Propagation, "tail", lambda self, value: honest(self, value) + 0.1)
    found = occlude(network, x, class_target(0), 4, 3)
    assert any("missed the masked forward" in note for note in found.notes)
    torch.testing.assert_close(found.values, right)


@pytest.mark.parametrize(("vectors", "units"), [(64, 64 * 3), (70, 49), (64, 36 * 5), (64, 50), (3, 64)])
def test_linear_maps_of_many_vectors(vectors: int, units: int) -> None:
    module, x = nn.Linear(units, 7).requires_grad_(False), torch.randn(vectors, units)
    exact = F.linear(x.double(), module.weight.double(), module.bias.double())
    assert float((linear(module, x).double() - exact).abs().max()) < 1e-5


def test_refusals() -> None:
    network, x = nets.wrap(nets.seeded(nets.Residual())), nets.image(side=12)
    with pytest.raises(SpecError, match="larger than the image"):
        occlude(network, x, class_target(0), 16, 8)
    with pytest.raises(SpecError, match="at least 1 pixel"):
        occlude(network, x, class_target(0), 4, 0)
    with pytest.raises(SpecError, match="engine 'fast'"):
        occlude(network, x, class_target(0), 4, 4, engine="fast")
    with pytest.raises(SpecError, match="value 'rise'"):
        occlude(network, x, class_target(0), 4, 4, value="rise")
    with pytest.raises(SpecError, match="cap"):
        occlude(network, x, class_target(0), 4, 4, cap=1.5)
    with pytest.raises(SpecError, match="out of range"):
        occlude(network, x, class_target(7), 4, 4)


def test_nothing_is_left_behind() -> None:
    module, x = nets.seeded(nets.Residual()), nets.image(side=16)
    module.train()
    state = {key: value.clone() for key, value in module.state_dict().items()}
    occlude(nets.wrap(module), x, class_target(0), 4, 3)
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert module.training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
