"""ReLU rules: hand-computed signs, every spelling, every structure, against graph hooks; refusals; nothing left
behind."""

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.attribution.carriers import contributions
from dissect.attribution.catalogue import MAPS, Slots, find
from dissect.attribution.gradients import METHODS, Method, attribute
from dissect.attribution.network import Network
from dissect.attribution.readouts import total
from dissect.attribution.rules import BACKPROP, DECONVNET, GUIDED, SUMS, SWITCHES
from dissect.attribution.targets import class_target, unit_target
from dissect.errors import SpecError
from tests.dissect.attribution import nets, oracle

RULES = {"backprop": BACKPROP, "deconvnet": DECONVNET, "guided": GUIDED}


def by_rule(name: str) -> Method:
    return Method(name, relu=RULES[name], readout=total)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # Places: (f > 0, R' > 0), (f > 0, R' < 0), (f < 0, R' > 0), (f < 0, R' < 0), f = 0 with R' > 0.
        ("backprop", [2.0, -3.0, 0.0, 0.0, 0.0]),
        ("deconvnet", [2.0, 0.0, 5.0, 0.0, 9.0]),
        ("guided", [2.0, 0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_four_sign_cases_and_zero_by_hand(rule: str, expected: list[float]) -> None:
    last = nn.Linear(5, 1, bias=False)
    with torch.no_grad():
        last.weight.copy_(torch.tensor([[2.0, -3.0, 5.0, -7.0, 9.0]]))
    network = Network(nn.Sequential(nn.ReLU(), nn.Flatten(), last))
    x = torch.tensor([4.0, 6.0, -8.0, -10.0, 0.0]).view(1, 1, 1, 5)
    assert attribute(network, x, class_target(0), by_rule(rule)).values.flatten().tolist() == expected


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", nets.SPELLINGS)
def test_every_spelling_equals_graph_hooks(spelling: str, rule: str) -> None:
    module, x = nets.seeded(nets.Spelt(spelling)), nets.image()
    found = attribute(nets.wrap(module), x, class_target(2), by_rule(rule))
    expected, relus = oracle.gradient(module, x, 2, rule)
    assert relus == 2
    assert torch.equal(found.values, expected)
    assert found.audit is not None
    assert found.audit.count("relu") == relus


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("structure", nets.STRUCTURES)
def test_every_structure_equals_graph_hooks(structure: str, rule: str) -> None:
    module, x = nets.seeded(nets.STRUCTURES[structure]()), nets.image()
    found = attribute(nets.wrap(module), x, class_target(1), by_rule(rule))
    expected, relus = oracle.gradient(module, x, 1, rule)
    torch.testing.assert_close(found.values, expected, rtol=1e-12, atol=1e-13)
    assert found.audit is not None
    assert found.audit.count("relu") == relus
    assert found.audit.found["relu"] == relus


def test_spellings_agree_with_each_other_and_rules_differ() -> None:
    maps = {
        (spelling, rule): attribute(
            nets.wrap(nets.seeded(nets.Spelt(spelling))), nets.image(), class_target(0), by_rule(rule)
        ).values
        for spelling in ("module", "F.relu", "method_")
        for rule in RULES
    }
    for rule in RULES:
        assert torch.equal(maps["module", rule], maps["F.relu", rule])
        assert torch.equal(maps["module", rule], maps["method_", rule])
    assert (maps["module", "guided"] - maps["module", "deconvnet"]).abs().max() > 1e-3
    assert (maps["module", "guided"] - maps["module", "backprop"]).abs().max() > 1e-3


def test_all_rules_are_the_gradient_when_weights_are_not_negative() -> None:
    module = nets.seeded(nets.Spelt("F.relu"))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
    x = nets.image().abs()
    plain = attribute(nets.wrap(module), x, class_target(0)).values
    for rule in RULES:
        torch.testing.assert_close(attribute(nets.wrap(module), x, class_target(0), by_rule(rule)).values, plain)


class Explicit(nn.Module):
    """conv, ReLU, pool, conv, ReLU, pool, and its deconvnet written out by hand: unpool, rectify, transposed
    convolution."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.one(x)), self.kernel, self.stride)
        return F.max_pool2d(F.relu(self.two(x)), self.kernel, self.stride)

    def unpool(self, r: Tensor, place: Tensor, shape: torch.Size) -> Tensor:
        out = torch.zeros(shape, dtype=r.dtype)
        for n in range(r.shape[0]):
            for u in range(r.shape[1]):
                for p in range(r[n, u].numel()):  # row order, so the last write wins
                    out[n, u].view(-1)[place[n, u].view(-1)[p]] = r[n, u].view(-1)[p]
        return out

    def deconvnet(self, x: Tensor, unit: int) -> Tensor:
        a = F.relu(self.one(x))
        b, first = F.max_pool2d(a, self.kernel, self.stride, return_indices=True)
        c = F.relu(self.two(b))
        d, second = F.max_pool2d(c, self.kernel, self.stride, return_indices=True)
        r = torch.zeros_like(d)
        r[0, unit].view(-1)[d[0, unit].argmax()] = 1
        r = F.conv_transpose2d(self.unpool(r, second, c.shape).clamp(min=0), self.two.weight, padding=1)
        return F.conv_transpose2d(self.unpool(r, first, a.shape).clamp(min=0), self.one.weight, padding=1)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (3, 1)])
def test_switches_are_the_explicit_deconvnet(kernel: int, stride: int) -> None:
    module = nets.seeded(Explicit(kernel, stride), 3)
    x = nets.image(side=14)
    found = attribute(nets.wrap(module), x, unit_target("output", 1), METHODS["deconvnet-switches"])
    torch.testing.assert_close(found.values, module.deconvnet(x, 1).detach(), rtol=1e-12, atol=1e-14)


def test_the_two_deconvnets_agree_only_without_overlap() -> None:
    for kernel, stride, same in ((2, 2, True), (3, 2, False)):
        network, x = nets.wrap(nets.seeded(Explicit(kernel, stride), 3)), nets.image(side=14)
        target = unit_target("output", 1, "sum")
        switches = attribute(network, x, target, METHODS["deconvnet-switches"]).values
        sums = attribute(network, x, target, METHODS["deconvnet"]).values
        explicit_sums = attribute(network, x, target, replace(METHODS["deconvnet"], pool=SUMS)).values
        assert torch.equal(switches, sums) == same
        torch.testing.assert_close(explicit_sums, sums, rtol=1e-12, atol=1e-14)


def test_adaptive_pools_and_returned_indices_follow_the_rule() -> None:
    class Pools(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y, _ = F.max_pool2d(F.relu(self.one(x)), 2, return_indices=True)
            return nn.AdaptiveMaxPool2d(1)(y).flatten(1)

    network, x = nets.wrap(nets.seeded(Pools())), nets.image()
    found = attribute(network, x, class_target(0), METHODS["deconvnet-switches"])
    assert found.audit is not None
    assert found.audit.count("max-pool") == 2
    assert torch.equal(found.values, attribute(network, x, class_target(0), METHODS["deconvnet"]).values)


@pytest.mark.parametrize(
    "activation", [nn.GELU(), nn.SiLU(), nn.ReLU6(), nn.LeakyReLU(), nn.ELU(), nn.Hardswish(), nn.Threshold(0.2, 0.0)]
)
def test_activations_without_a_definition_are_refused_and_extended(activation: nn.Module) -> None:
    module = nets.seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), activation, nn.Flatten()))
    network, x = nets.wrap(module), nets.image(side=6)
    with pytest.raises(SpecError, match="no definition at 1 x"):
        attribute(network, x, class_target(0), METHODS["guided"])
    extended = attribute(network, x, class_target(0), replace(METHODS["guided"], extension="derivative"))
    assert extended.audit is not None
    assert sum(extended.audit.extended.values()) == 1
    # By hand: (f > 0)(R > 0) at the ReLU, f'(z)(R > 0) at the other.
    a = module[0](x)
    z = module[2](a.relu()).requires_grad_()
    above = torch.zeros(1, 4, 2, 2, dtype=torch.float64)
    above[0, 0, 0, 0] = 1
    r = torch.autograd.grad(activation(z), z, above)[0]
    r = F.conv_transpose2d(r, module[2].weight).clamp(min=0) * (a > 0)
    torch.testing.assert_close(extended.values, F.conv_transpose2d(r, module[0].weight).detach())


def test_extension_of_the_deconvnet_passes_what_arrives() -> None:
    module = nets.seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(64, 2)))
    x = nets.image(side=6)
    found = attribute(nets.wrap(module), x, class_target(1), replace(METHODS["deconvnet"], extension="derivative"))
    r = module[3].weight[1].view(1, 4, 4, 4).clamp(min=0)
    torch.testing.assert_close(found.values, F.conv_transpose2d(r, module[0].weight).detach())


def test_no_relu_means_refusal() -> None:
    network = nets.wrap(nets.seeded(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())))
    with pytest.raises(SpecError, match="no relu call lies between"):
        attribute(network, nets.image(side=4), class_target(0), METHODS["guided"])


def test_scripted_relu_is_found_by_the_walk() -> None:
    inner = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).double())
    network = nets.wrap(nn.Sequential(inner, nn.ReLU(), nn.Flatten()).double())
    with pytest.raises(SpecError, match=r"out of the rule's reach|no definition"):
        attribute(network, nets.image(side=4), class_target(0), METHODS["guided"])


def test_a_custom_function_is_refused() -> None:
    class Odd(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx: object, *grads: Tensor) -> Tensor:
            return grads[0]

    class Custom(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Odd.apply(F.relu(x)).flatten(1)

    network, x = nets.wrap(Custom()), nets.image(side=4)
    with pytest.raises(SpecError, match="custom function"):
        attribute(network, x, class_target(0), METHODS["guided"])
    # Without a rule its own derivative counts, which is what its author wrote.
    assert torch.equal(attribute(network, x, class_target(0)).values[0, 0, 0, 0], (x[0, 0, 0, 0] > 0).double())


def test_a_hand_written_gate_is_reported() -> None:
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (F.relu(x) * (x > 0)).flatten(1)

    found = attribute(nets.wrap(Gate()), nets.image(side=4), class_target(0), METHODS["guided"])
    assert any("compared" in note for note in found.notes)


@pytest.mark.parametrize(
    ("by_hand", "name"),
    [
        (lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2, "erf"),
        (lambda x: (x + x.abs()) / 2, "abs"),
        (lambda x: torch.where(x > 0, x, 0), "where"),
        (lambda x: x.masked_fill(x < 0, 0), "masked fill"),
        (lambda x: x * torch.sigmoid(x), "sigmoid"),
        (lambda x: torch.maximum(x, x / 10), "maximum"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_activations_written_by_hand_are_told(by_hand: Callable[[Tensor], Tensor], name: str) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(by_hand(x)).flatten(1)

    found = attribute(nets.wrap(Net()), nets.image(side=4), class_target(0), METHODS["guided"])
    assert f"1 x {name}: plain derivative" in found.notes


def test_the_audit_names_layers_and_spellings() -> None:
    found = attribute(nets.wrap(nets.seeded(nets.PreActivation())), nets.image(), class_target(0), METHODS["guided"])
    assert found.audit is not None
    assert [(c.layer, c.spelling) for c in found.audit.calls] == [
        ("relu", "F.relu"),
        ("relu", "F.relu"),
        ("", "F.relu"),
    ]
    assert found.audit.json()["replaced"] == {"relu": 3}


def hooks(module: nn.Module) -> list[int]:
    return [
        len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks) for part in module.modules()
    ]


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_left_on_the_model(method: str) -> None:
    module = nets.seeded(nets.Spelt("in-place module"))
    module.train()
    module.two.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    flags = [part.training for part in module.modules()]
    before, parts = hooks(module), list(module.modules())
    attribute(nets.wrap(module), nets.image(), class_target(0), METHODS[method])
    assert hooks(module) == before
    assert list(module.modules()) == parts
    assert [part.training for part in module.modules()] == flags
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert not torch.overrides._get_current_function_mode_stack()


class Breaks(nets.Spelt):
    """Ends with an error at a later pass: the two passes that probe it go through."""

    def __init__(self, passes: int) -> None:
        super().__init__("in-place module")
        self.left = passes

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            self.two(self.one(x))  # hooks of two layers are on the stack by then
            raise ArithmeticError("broken")
        return super().forward(x)


@pytest.mark.parametrize("passes", [2, 3])
@pytest.mark.parametrize("method", [*MAPS, "path", "ablation"])
def test_everything_is_restored_when_a_pass_raises(method: str, passes: int) -> None:
    module = nets.seeded(Breaks(passes)).train()
    module.two.eval()
    state = {key: value.clone() for key, value in module.state_dict().items()}
    flags, before = [part.training for part in module.modules()], hooks(module)
    network, x = nets.wrap(module), nets.image()
    slots = Slots(steps=3, draws=3, masks=6, patch=4, stride=4, batch=2)

    def twice() -> None:  # some methods need one pass only, so the second call is the broken one
        for _ in range(2):
            if method in MAPS:
                find(method, slots)(network, x, class_target(0))
            else:
                contributions(network, x, class_target(0), "one", method)

    with pytest.raises(ArithmeticError):
        twice()
    assert hooks(module) == before
    assert [part.training for part in module.modules()] == flags
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert not torch.overrides._get_current_function_mode_stack()
    assert torch.is_grad_enabled()


def test_memory_stays_flat_over_many_calls() -> None:
    network, x = nets.wrap(nets.seeded(nets.Spelt("F.relu"))), nets.image(side=6)

    def many(count: int) -> int:
        for _ in range(count):
            attribute(network, x, class_target(0), METHODS["guided"])
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first = many(100)
        grown = many(600) - first
    finally:
        tracemalloc.stop()
    assert grown < 50_000  # one object a call would be 60 kB at least


def test_rows_of_a_batch_do_not_mix() -> None:
    network, x = nets.wrap(nets.seeded(nets.Residual())), nets.image(count=3)
    whole = attribute(network, x, class_target(0), METHODS["guided"]).values
    for i in range(3):
        torch.testing.assert_close(
            attribute(network, x[i : i + 1], class_target(0), METHODS["guided"]).values[0], whole[i]
        )


def test_switch_rule_slot_is_data() -> None:
    method = replace(METHODS["guided"], pool=SWITCHES)
    found = attribute(nets.wrap(nets.seeded(Explicit(3, 2))), nets.image(), unit_target("output", 0), method)
    assert found.method["pool"] == "switches"
