import pytest
import torch
from torch import Tensor, nn

from dissect.errors import SpecError
from dissect.inversion.network import Network
from tests.dissect.inversion.nets import RANGE, Small, small


def test_the_pass_ends_at_the_last_layer_asked_for() -> None:
    network = small()
    network.module.reached = 0
    network.features(torch.zeros(1, 3, 16, 16), ["one", "two"])
    assert network.module.reached == 0
    network.logits(torch.zeros(1, 3, 16, 16))
    assert network.module.reached == 1


def test_an_in_place_follower_does_not_change_what_is_read() -> None:
    network = small()
    z = torch.randn(2, 3, 16, 16) * 50
    alone = network.features(z, ["two"])["two"]
    beside = network.features(z, ["two", "three"])["two"]
    assert bool((alone < 0).any())
    assert torch.equal(alone, beside)


def test_no_hook_stays_behind_also_after_an_error() -> None:
    network = small()
    network.features(torch.zeros(1, 3, 16, 16), ["two"])
    with pytest.raises(RuntimeError):
        network.features(torch.zeros(1, 5, 16, 16), ["two"])
    assert all(not module._forward_hooks for module in network.module.modules())


def test_gradients_are_those_of_the_whole_network() -> None:
    network = small(dtype=torch.float64)
    z = torch.randn(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    early = torch.autograd.grad(network.features(z, ["three"])["three"].square().sum(), z)[0]
    kept: list[Tensor] = []
    handle = network.module.three.register_forward_hook(lambda m, i, o: kept.append(o))
    network.module(RANGE.to_input(z))
    handle.remove()
    assert torch.equal(early, torch.autograd.grad(kept[0].square().sum(), z)[0])


class Odd(nn.Module):
    """Layers that no gradient passes: rounding to integers, a detached copy; a layer that never runs; a tuple."""

    class Ints(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.long()

    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach() * 2

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    def __init__(self) -> None:
        super().__init__()
        self.ints, self.cut, self.pair, self.idle = Odd.Ints(), Odd.Cut(), Odd.Pair(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        self.ints(x)
        self.pair(x)
        return self.cut(x)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("ints", "no gradient"),
        ("cut", "passes no gradient"),
        ("pair", "not return one tensor"),
        ("idle", "did not run"),
        ("nowhere", "has no layer 'nowhere'"),
    ],
)
def test_a_layer_that_cannot_serve_is_refused_by_name(layer: str, said: str) -> None:
    network = Network(Odd(), RANGE, (4, 4))
    with pytest.raises(SpecError, match=said):
        network.features(torch.zeros(1, 3, 4, 4, requires_grad=True), [layer])


def test_an_image_too_small_for_the_network_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 11), nn.MaxPool2d(4))
    with pytest.raises(SpecError, match=r"does not take images of 8 x 8 x 3.*larger --input-size"):
        Network(module, RANGE, (8, 8))


def test_classes_and_units_out_of_range_are_refused() -> None:
    network = small(classes=5)
    with pytest.raises(SpecError, match="class 5 is out of range: small 0 has classes 0 to 4"):
        network.check_class(5)
    with pytest.raises(SpecError, match="unit 12 is out of range"):
        network.check_unit("two", 12)


def test_order_shapes_and_strides() -> None:
    network = small()
    assert network.layers == ["one", "two", "relu", "three", "out", "output"]
    assert network.shape("three") == (16, 4, 4)
    assert (network.stride("one"), network.stride("three"), network.stride("out")) == (1, 4, 16)


def test_training_mode_is_left() -> None:
    module = Small().train()
    Network(module, RANGE, (16, 16))
    assert not module.training
