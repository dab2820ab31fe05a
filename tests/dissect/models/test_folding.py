"""Folding: the same function, every name stays, and what is read is what it was."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from dissect import models
from dissect.models.folding import fold_batch_norms


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in eval mode with batch norms that do something."""
    torch.manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.2, 3)
            if norm.affine:
                norm.weight.data.normal_(1, 0.5)
                norm.bias.data.normal_()
    return module.eval()


class Branchy(nn.Module):
    """A norm after a convolution whose output is also used elsewhere, and one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.an = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.b, self.bn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.c, self.cn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.an(self.a(x)).relu()
        y = self.b(x)
        return self.cn(self.c(self.bn(y) + y)) + self.cn(x)


class Split(nn.Module):
    """A convolution at the end of one submodule, its norm in another."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 1))
        self.rest = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.features(x))


class Reused(nn.Module):
    """Weights of the convolution are used a second time without the module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(self.norm(self.conv(x)), self.conv.weight)


class Choosy(nn.Module):
    """What no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) if x.sum() > 0 else x


def tied() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    net[2].weight = net[0].weight
    return net


def hooked() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    net[0].register_forward_hook(lambda module, inputs, output: output * 2)
    return net


def count(net: nn.Module, keep: tuple[str, ...] = ()) -> int:
    """How many norms were folded; checks the function, the names and that the original is untouched."""
    image = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    before = copy.deepcopy(net.state_dict())
    notes: list[str] = []
    folded = fold_batch_norms(net, keep, notes)
    assert torch.allclose(net(image), folded(image), rtol=1e-4, atol=1e-5)
    assert [name for name, _ in net.named_modules()] == [name for name, _ in folded.named_modules()]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    if folded is net:
        assert not any("folded into" in note for note in notes)
        return 0
    assert not any(p.requires_grad for p in folded.parameters())
    assert len(notes) == 1
    return int(notes[0].partition(" ")[0])


@pytest.mark.parametrize(
    ("net", "keep", "folded"),
    [
        (Branchy(), (), 1),
        (Branchy(), ("b",), 1),
        (Branchy(), ("a",), 0),
        (Branchy(), ("an",), 0),
        (Split(), (), 1),
        (Split(), ("rest",), 1),
        (Split(), ("features",), 0),
        (Split(), ("features.0",), 0),
        (Reused(), (), 0),
        (tied(), (), 0),
        (hooked(), (), 0),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)), (), 1),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)), (), 0),
        (nn.Sequential(nn.ConvTranspose2d(3, 4, 1), nn.BatchNorm2d(4)), (), 0),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)), (), 0),
        (nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, 2, 3, padding_mode="reflect"), nn.BatchNorm2d(6)), (), 1),
    ],
)
def test_what_is_folded(net: nn.Module, keep: tuple[str, ...], folded: int) -> None:
    assert count(lively(net), keep) == folded


def test_a_network_that_cannot_be_traced_comes_back_and_that_is_said() -> None:
    net, notes = Choosy().eval(), []
    assert fold_batch_norms(net, (), notes) is net
    assert notes[0].startswith("batch norms are not folded, as the network cannot be traced (TraceError: ")


def test_kept_layers_return_what_they_returned() -> None:
    """Every layer of a residual network in turn: kept, it reads as before up to rounding."""
    net = lively(models.load("resnet18").module)
    image = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))

    def outputs(module: nn.Module, name: str) -> Tensor:
        found: list[Tensor] = []
        handle = module.get_submodule(name).register_forward_hook(lambda m, i, output: found.append(output.clone()))
        module(image)
        handle.remove()
        return found[-1]

    with torch.inference_mode():
        for name in (
            "conv1",
            "bn1",
            "layer1.0.conv1",
            "layer2.0.downsample",
            "layer2.0.downsample.0",
            "layer3",
            "relu",
        ):
            expected = outputs(net, name)
            got = outputs(fold_batch_norms(net, (name,), []), name)
            assert torch.allclose(expected, got, rtol=1e-3, atol=1e-3 * float(expected.abs().max())), name


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.sampled_from([1, 3]), st.booleans(), st.booleans(), st.integers(0, 99))
def test_one_pair_is_exact_in_float64(
    units_in: int, units: int, kernel: int, bias: bool, affine: bool, seed: int
) -> None:
    pair = [nn.Conv2d(units_in, units, kernel, bias=bias), nn.BatchNorm2d(units, affine=affine)]
    net = lively(nn.Sequential(*pair), seed).double()
    image = torch.randn(2, units_in, 5, 5, dtype=torch.float64)
    folded = fold_batch_norms(net, (), [])
    assert isinstance(folded.get_submodule("1"), nn.Identity)
    assert torch.allclose(net(image), folded(image), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "norms"), [("resnet18", 20), ("mobilenet_v2", 52), ("googlenet", 57), ("densenet121", 59)]
)
def test_real_networks_fold_to_the_same_outputs(name: str, norms: int) -> None:
    net = lively(models.load(name).module)
    notes: list[str] = []
    folded = fold_batch_norms(net, (), notes)
    assert notes == [f"{norms} batch norms folded into their convolutions"]
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, got = net(image), folded(image)
    assert float((expected - got).abs().max()) <= 1e-3 * float(expected.abs().max())
