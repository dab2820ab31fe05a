"""Fusing: the same values, every name stays, NaN is never lost, and afterwards all is as it was."""

import math

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from dissect import models
from dissect.forward import Forward
from dissect.models.bounds import bounds
from dissect.models.chains import trace
from dissect.models.fusing import LIMIT, Fusing
from tests.dissect.models.test_folding import Branchy, Choosy, lively

LARGEST = 3.0


class Block(nn.Module):
    """A residual block: one ReLU follows the first convolution and the sum, none the second convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(self.first(x))) + x)


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.Identity(), nn.ReLU(), Block(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 1), nn.ReLU6()
    ).eval()


def images(*shape: int) -> Tensor:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 * LARGEST - LARGEST
    return values.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def test_a_network_gives_the_same_and_every_pair_is_found() -> None:
    net, x = network(), images(2, 3, 33, 33)
    plain = net(x)
    with Fusing(net, (), LARGEST) as fusing:
        assert fusing.pairs == [("0", "2"), ("3.first", "3.relu"), ("5", "6")]
        torch.testing.assert_close(net(x), plain, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(net(x[:1]), plain[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "pairs", "dtype"),
    [
        ("squeezenet1_1", 26, torch.float32), ("resnet18", 9, torch.float32), ("mobilenet_v2", 35, torch.bfloat16),
        ("vgg11", 8, torch.float32),
    ],
)  # fmt: skip
@torch.inference_mode()
def test_real_networks_give_the_same(name: str, pairs: int, dtype: torch.dtype) -> None:
    net = lively(models.load(name, keep=["none"]).module).to(dtype).to(memory_format=torch.channels_last)
    x = images(2, 3, 64, 64).to(dtype)
    plain = net(x)
    with Fusing(net, (), LARGEST) as fusing:
        assert len(fusing.pairs) == pairs
        fused = net(x)
    spread = float(plain.float().std())
    torch.testing.assert_close(
        fused.float(), plain.float(), rtol=0, atol=(1e-5 if dtype == torch.float32 else 0.05) * spread
    )


@torch.inference_mode()
def test_layers_that_are_read_return_what_they_did() -> None:
    net, x = network(), images(1, 3, 17, 17)

    def read(name: str) -> Tensor:
        kept: list[Tensor] = []
        handle = net.get_submodule(name).register_forward_hook(lambda module, given, out: kept.append(out.clone()))
        net(x)
        handle.remove()
        return kept[0]

    for name in ("0", "1", "2", "3", "3.first", "3.second", "5", "6"):
        plain = read(name)
        with Fusing(net, [name], LARGEST):
            torch.testing.assert_close(read(name), plain, rtol=1e-5, atol=1e-5)


def test_a_layer_that_ends_between_the_two_is_left_alone() -> None:
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Sequential(nn.Identity()), nn.ReLU())
    assert Fusing(net, ["2"], LARGEST).pairs == [("0.0", "2")]
    for name in ("0", "0.0", "1", "1.0"):
        assert not Fusing(net, [name], LARGEST).pairs


def test_what_cannot_be_fused_is_left_alone() -> None:
    assert not Fusing(Branchy(), (), LARGEST).pairs
    assert not Fusing(Choosy(), (), LARGEST).pairs
    reflecting = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU())
    assert not Fusing(reflecting, (), LARGEST).pairs
    assert not Fusing(network().double(), (), LARGEST).pairs
    hooked = network()
    hooked[0].register_forward_hook(lambda module, given, out: None)
    hooked[6].register_forward_hook(lambda module, given, out: None)
    assert Fusing(hooked, (), LARGEST).pairs == [("3.first", "3.relu")]


@torch.inference_mode()
def test_nan_and_overflow_show_as_they_do_without() -> None:
    x = images(1, 3, 17, 17)
    for value in (math.nan, math.inf, 1e37):
        net = network()
        net[3].first.weight[2, 1, 0, 0] = value
        net[5].weight[3] *= -1
        plain = net(x)
        assert bool(plain.isnan().any()) == (value != 1e37)
        with Fusing(net, (), LARGEST) as fusing:
            assert fusing.pairs == [("0", "2")]  # what comes before
            torch.testing.assert_close(net(x), plain, equal_nan=True)


def test_all_is_as_it_was_even_when_the_body_fails() -> None:
    net = network()
    before = dict(net.named_modules())
    with pytest.raises(ZeroDivisionError), Fusing(net, (), LARGEST):
        raise ZeroDivisionError
    after = dict(net.named_modules())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_a_forward_context_fuses_and_undoes_it() -> None:
    net = network()
    before = dict(net.named_modules())
    with Forward(net, ["6"], (0.5,) * 3, (0.1,) * 3) as forward:
        assert type(net[0]) is not nn.Conv2d
        maps = forward(torch.randint(0, 256, (2, 20, 20, 3), dtype=torch.uint8).numpy())["6"]
    assert maps.min() >= 0
    assert all(net.get_submodule(name) is module for name, module in before.items())


class _Largest(fx.Interpreter):
    """Notes the largest |x| that every node gives."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, graph=trace(module))
        self.seen: dict[fx.Node, float] = {}

    def run_node(self, n: fx.Node) -> object:
        out = super().run_node(n)
        if isinstance(out, Tensor):
            self.seen[n] = float(out.double().abs().max())
        return out


class Pooled(nn.Module):
    """Everything that bounds are known of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6), nn.Linear(12, 5)
        self.six, self.drop, self.pool = nn.ReLU6(), nn.Dropout(), nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        x = torch.cat([self.six(x), functional.relu(x) + x], 1)
        x = functional.adaptive_avg_pool2d(self.pool(x).relu(), 1)
        return self.linear(self.drop(torch.flatten(x, 1)))


@pytest.mark.parametrize("seed", range(5))
@torch.inference_mode()
def test_no_value_goes_beyond_its_bound(seed: int) -> None:
    net = lively(nn.Sequential(Pooled()), seed)
    known = _Largest(net)
    reach = dict(bounds(known.graph, dict(net.named_modules()), LARGEST))
    assert all(value < LIMIT for value in reach.values())
    for sign in (images(4, 3, 16, 16), images(4, 3, 16, 16).sign() * LARGEST):
        known.run(sign)
        for node, largest in known.seen.items():
            assert largest <= reach[node] * (1 + 1e-5), node


@torch.inference_mode()
def test_a_bound_is_reached() -> None:
    conv = nn.Conv2d(2, 1, 1)
    conv.weight.copy_(torch.tensor([2.0, -3.0]).view(1, 2, 1, 1))
    conv.bias.fill_(-1)
    net = nn.Sequential(conv)
    *_, (_, reach) = bounds(trace(net), {"0": conv}, LARGEST)
    assert reach == abs(float(net(torch.tensor([-LARGEST, LARGEST]).view(1, 2, 1, 1)))) == 5 * LARGEST + 1


def test_behind_an_unknown_operation_anything_is_possible() -> None:
    class Strange(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.exp(x)

    net = nn.Sequential(Strange(), nn.Conv2d(3, 4, 1), nn.ReLU())
    *_, (_, reach) = bounds(trace(net), dict(net.named_modules()), LARGEST)
    assert reach == math.inf
    assert not Fusing(net, (), LARGEST).pairs
