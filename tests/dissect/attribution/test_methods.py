"""Gradients against finite differences and closed forms; paths, noise, relevance, Grad-CAM; targets and refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.attribution.cam import default_layer, grad_cam, guided_grad_cam
from dissect.attribution.catalogue import Slots, find
from dissect.attribution.gradients import METHODS, attribute, integrated_gradients, scores, smoothgrad
from dissect.attribution.naming import parse_target
from dissect.attribution.network import Network
from dissect.attribution.readouts import maximum, norm, total
from dissect.attribution.rise import random_mask, rise
from dissect.attribution.rules import epsilon_rule
from dissect.attribution.targets import Target, class_target, concept_target, direction_target, unit_target
from dissect.errors import SpecError
from tests.dissect.attribution import nets

SMOOTH = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 5))


def linear_net() -> nn.Sequential:
    return nets.seeded(nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 4)))  # type: ignore[return-value]


def finite_differences(network: Network, x: Tensor, target: Target, step: float = 1e-5) -> Tensor:
    found = torch.zeros_like(x)
    for i in range(x.numel()):
        move = torch.zeros(x.numel(), dtype=x.dtype)
        move[i] = step
        up, down = x + move.view_as(x), x - move.view_as(x)
        found.view(-1)[i] = (scores(network, up, target) - scores(network, down, target))[0] / (2 * step)
    return found


@pytest.mark.parametrize(
    "target",
    [
        class_target(3),
        class_target(2, probability=True),
        unit_target("2", 1, (1, 2)),
        unit_target("2", 0, "mean"),
        direction_target("0", [1.0, -2.0, 0.5, 0.0], "sum"),
        concept_target("2", "dog", [0, 3], "sum"),
    ],
    ids=lambda target: target.title,
)
def test_gradient_equals_finite_differences(target: Target) -> None:
    network, x = nets.wrap(nets.seeded(SMOOTH)), nets.image(side=8)
    found = attribute(network, x, target).values
    torch.testing.assert_close(found, finite_differences(network, x, target), rtol=1e-6, atol=1e-9)


def test_linear_network_gives_its_weights() -> None:
    module, x = linear_net(), nets.image(side=6, count=2)
    weights = module[1].weight[2].view(3, 6, 6)
    assert torch.equal(attribute(nets.wrap(module), x, class_target(2)).map, norm(weights[None]).expand(2, -1, -1))
    largest = attribute(nets.wrap(module), x, class_target(2), "gradient-max").map
    assert torch.equal(largest[0], maximum(weights[None])[0])
    product = attribute(nets.wrap(module), x, class_target(2), "gradient-x-input").values
    torch.testing.assert_close(product, weights * x)


def test_probability_and_logit_differ_by_the_jacobian_of_the_softmax() -> None:
    module, x = linear_net(), nets.image(side=6)
    p = module(x).softmax(1)[0]
    rows = module[1].weight.view(4, 3, 6, 6)
    expected = p[1] * (rows[1] - (p.view(4, 1, 1, 1) * rows).sum(0))
    torch.testing.assert_close(attribute(nets.wrap(module), x, class_target(1, True)).values[0], expected.detach())


def test_integrated_gradients_are_complete_and_exact_on_a_linear_network() -> None:
    network, x = nets.wrap(linear_net()), nets.image(side=6)
    baseline = nets.image(9, 6)
    found = attribute(network, x, class_target(0), integrated_gradients(3), baseline)
    torch.testing.assert_close(found.values, network.module[1].weight[0].view(1, 3, 6, 6) * (x - baseline))
    deep = nets.wrap(nets.seeded(SMOOTH))
    gaps = [
        float(
            attribute(deep, nets.image(side=8), class_target(1), integrated_gradients(n))
            .extra["completeness_gap"]
            .abs()
        )
        for n in (4, 64)
    ]
    assert gaps[1] < 1e-3 < gaps[0] or gaps[1] < gaps[0] / 50


def test_smoothgrad_of_a_linear_network_is_its_gradient_and_noise_ignores_the_batch() -> None:
    module, x = linear_net(), nets.image(side=6, count=3)
    found = attribute(nets.wrap(module), x, class_target(0), smoothgrad(5))
    torch.testing.assert_close(found.values[1], module[1].weight[0].view(3, 6, 6))
    deep, x = nets.wrap(nets.seeded(SMOOTH)), nets.image(side=8, count=3)
    whole = attribute(deep, x, class_target(0), smoothgrad(4, seed=5)).values
    alone = attribute(deep, x[1:2], class_target(0), smoothgrad(4, seed=5)).values
    torch.testing.assert_close(whole[1:2], alone)
    assert not torch.equal(whole, attribute(deep, x, class_target(0), smoothgrad(4, seed=6)).values)
    guided = smoothgrad(2, base=METHODS["guided"])
    assert guided.relu is METHODS["guided"].relu
    assert guided.name == "smooth guided"


def no_bias(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
                part.bias.zero_()
    return module


@pytest.mark.parametrize("structure", ["pre-activation", "in-place shared", "dense"])
def test_relevance_is_conserved_without_biases(structure: str) -> None:
    network = nets.wrap(no_bias(nets.seeded(nets.STRUCTURES[structure]())))
    x, target = nets.image(), class_target(1)
    epsilon = attribute(network, x, target, replace(METHODS["lrp-epsilon"], linear=epsilon_rule(1e-12)))
    torch.testing.assert_close(epsilon.values.sum(), epsilon.score[0], rtol=1e-6, atol=1e-8)
    excitation = attribute(network, x, target, "excitation")
    torch.testing.assert_close(excitation.values.sum(), excitation.score[0], rtol=1e-6, atol=1e-8)


def test_excitation_by_hand() -> None:
    # Two inputs (3, 1), one hidden unit with weights (2, -4), bias 1: z = 3, all of it from the first input.
    module = nn.Sequential(nn.Conv2d(2, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([2.0, -4.0]).view(1, 2, 1, 1))
        module[0].bias.fill_(1.0)
        module[3].weight.fill_(5.0)
    x = torch.tensor([3.0, 1.0]).view(1, 2, 1, 1)
    assert attribute(Network(module), x, class_target(0), "excitation").values.flatten().tolist() == [15.0, 0.0]
    epsilon = attribute(Network(module), x, class_target(0), replace(METHODS["lrp-epsilon"], linear=epsilon_rule(0.0)))
    # z = 6 - 4 + 1; R = 15 is shared as 6 : -4 of z.
    torch.testing.assert_close(epsilon.values.flatten(), torch.tensor([30.0, -20.0]))


def test_grad_cam_from_its_equations() -> None:
    module = nets.seeded(
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 25, 3))
    )
    network, x = nets.wrap(module), nets.image(side=12)
    maps = module[0](x)
    above = module[3].weight[1].view(1, 4, 5, 5) * (maps > 0)
    raw = (above.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).detach()
    found = grad_cam(network, x, class_target(1), "0")
    torch.testing.assert_close(found.values, raw.clamp(min=0))
    torch.testing.assert_close(found.map[0], F.interpolate(raw.clamp(min=0), size=(12, 12), mode="bilinear")[0, 0])
    torch.testing.assert_close(grad_cam(network, x, class_target(1), "0", signed=True).values, raw)
    assert default_layer(network, x, class_target(0)) == "1"
    fine = attribute(network, x, class_target(1), "guided")
    both = guided_grad_cam(network, x, class_target(1), "0")
    torch.testing.assert_close(both.values, fine.values * found.map[:, None])
    with pytest.raises(SpecError, match="does not depend on layer '1'"):
        grad_cam(network, x, unit_target("0", 1), "1")


def test_a_reused_layer_is_read_at_its_last_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(torch.tanh(self.conv(x))).mean((2, 3))

    network, x = nets.wrap(nets.seeded(Twice())), nets.image(side=4)
    target = unit_target("conv", 1, (2, 3))
    torch.testing.assert_close(
        attribute(network, x, target).values, finite_differences(network, x, target), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize(
    ("method", "total"),
    [("integrated-gradients", 3), ("smoothgrad", 4), ("rise", 5), ("occlusion", 9), ("gradient", 1)],
)
def test_long_answers_tell_how_far_they_are(method: str, total: int) -> None:
    told: list[tuple[int, int]] = []
    slots = Slots(steps=3, draws=4, masks=5, patch=4, stride=4, batch=2)
    find(method, slots, lambda done, of: told.append((done, of)))(spell(), nets.image(), class_target(0))
    assert {of for _, of in told} == {total}
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (total, total)


def test_the_pass_ends_at_the_target() -> None:
    module = nets.seeded(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 16, 2)))
    network, x = nets.wrap(module), nets.image(side=6)
    network.probe(x)
    ran = []
    handle = module[3].register_forward_hook(lambda *_: ran.append(1))
    attribute(network, x, unit_target("0", 1))
    handle.remove()
    assert not ran


def test_rise_estimates_a_linear_network_and_ignores_the_batch() -> None:
    module = nets.seeded(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2)))
    x = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    x[:, :, 2:4, 2:4] = 1
    with torch.no_grad():
        module[1].weight.zero_()
        module[1].bias.zero_()
        module[1].weight.view(2, 3, 8, 8)[0, :, 2:4, 2:4] = 1
    network = nets.wrap(module)
    found = rise(network, x, class_target(0), masks=300, cells=4, batch=64)
    row, column = divmod(int(found.map[0].argmax()), 8)
    assert 1 <= row <= 4
    assert 1 <= column <= 4
    parts = [rise(network, x, class_target(0), masks=40, cells=4, batch=batch).map for batch in (7, 32)]
    torch.testing.assert_close(*parts)
    assert float(found.extra["standard_error"].max()) > 0
    generator = torch.Generator().manual_seed(0)
    mean = torch.stack([random_mask(9, 11, 3, 0.5, generator) for _ in range(2000)]).mean(0)
    assert float((mean - 0.5).abs().max()) < 0.06


# Refusals -------------------------------------------------------------------------------------------------------------


def spell() -> Network:
    return nets.wrap(nets.seeded(nets.Spelt("module")))


def test_wrong_targets() -> None:
    x = nets.image()
    with pytest.raises(SpecError, match=r"class 4 is out of range.*classes 0 to 3"):
        attribute(spell(), x, class_target(4))
    with pytest.raises(SpecError, match="unit 9 is out of range"):
        attribute(spell(), x, unit_target("one", 9))
    with pytest.raises(SpecError, match="has no layer 'tree'"):
        attribute(spell(), x, unit_target("tree", 0))
    with pytest.raises(SpecError, match="does not run"):
        attribute(spell(), x, unit_target("in_place", 0))
    with pytest.raises(SpecError, match="lies outside the map"):
        attribute(spell(), x, unit_target("one", 0, (40, 0)))
    with pytest.raises(SpecError, match="reduction 'most'"):
        attribute(spell(), x, unit_target("one", 0, "most"))
    with pytest.raises(SpecError, match="length is 0"):
        direction_target("one", [0.0, 0.0])
    with pytest.raises(SpecError, match="no unit of 'one' detects 'dog'"):
        concept_target("one", "dog", [])
    with pytest.raises(SpecError, match="method 'magic' is unknown"):
        attribute(spell(), x, class_target(0), "magic")
    with pytest.raises(SpecError, match="extension 'hope'"):
        attribute(spell(), x, class_target(0), replace(METHODS["guided"], extension="hope"))


def test_inputs_that_cannot_be_attributed() -> None:
    network = spell()
    with pytest.raises(SpecError, match="int64, which has no gradient"):
        attribute(network, torch.zeros(1, 3, 8, 8, dtype=torch.int64), class_target(0))
    with pytest.raises(SpecError, match="NaN"):
        attribute(network, torch.full((1, 3, 8, 8), torch.nan), class_target(0))
    with pytest.raises(SpecError, match=r"expected images \[N, C, h, w\]"):
        attribute(network, torch.zeros(3, 8, 8), class_target(0))
    with pytest.raises(SpecError, match="does not take images"):
        attribute(network, torch.zeros(1, 5, 8, 8), class_target(0))
    half = attribute(network, nets.image().half(), class_target(0))
    assert half.values.dtype == torch.float64
    with pytest.raises(SpecError, match=r"input range .* is unknown"):
        Network(network.module).prepare(np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(SpecError, match="expected uint8"):
        network.prepare(np.zeros((1, 4, 4, 3), np.float32))
    with torch.inference_mode():
        made_there = torch.randn(1, 3, 8, 8, dtype=torch.float64)
        assert attribute(network, made_there, class_target(0)).values.shape == (1, 3, 8, 8)


def test_networks_that_cannot_be_attributed() -> None:
    with pytest.raises(SpecError, match="float16"):
        Network(nn.Conv2d(3, 2, 1).half())
    with pytest.raises(SpecError, match="no running statistics"):
        Network(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)))

    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().flatten(1)

    with pytest.raises(SpecError, match="no gradient path"):
        attribute(Network(Cut()), torch.zeros(1, 3, 2, 2), class_target(0))

    class Dice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5, training=True).flatten(1)

    with pytest.raises(SpecError, match="not deterministic"):
        attribute(Network(Dice()), torch.ones(1, 3, 4, 4), class_target(0))


def test_batch_norm_in_train_mode_is_put_to_eval_and_back() -> None:
    module, x = nets.seeded(nets.Residual()), nets.image(count=2)
    expected = attribute(nets.wrap(module), x, class_target(0)).values
    module.train()
    assert torch.equal(attribute(nets.wrap(module), x, class_target(0)).values, expected)
    assert module.norm.training


def test_a_silent_target_is_told() -> None:
    module = nets.seeded(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten()))
    with torch.no_grad():
        module[0].bias.fill_(-1e6)
    found = attribute(nets.wrap(module), nets.image(side=4), class_target(0))
    assert any("nothing arrives" in note for note in found.notes)


def test_targets_by_name(tmp_path: object) -> None:
    from pathlib import Path

    network, x = spell(), nets.image()
    best = int(network.module(x).argmax())
    assert parse_target("top", network, x) == class_target(best)
    assert parse_target("3", network, x) == parse_target("class:3", network, x) == class_target(3)
    assert parse_target("unit:one:2", network, x, reduce="sum") == unit_target("one", 2, "sum")
    path = Path(str(tmp_path)) / "v.npy"
    np.save(path, np.array([3.0, 0, 4.0, 0, 0, 0]))
    assert parse_target(f"direction:one:{path}", network, x).weights[:3] == (0.6, 0.0, 0.8)
    found = parse_target("concept:one:dog", network, x, detectors=lambda layer, concept: [4, 1])
    assert found.units == (1, 4)
    for wrong in ("unit:one", "class:x", "tree", f"direction:one:{path}x"):
        with pytest.raises(SpecError):
            parse_target(wrong, network, x)
    with pytest.raises(SpecError, match="--run"):
        parse_target("concept:one:dog", network, x)


def test_total_of_batch_is_sum_of_planes() -> None:
    values = torch.randn(2, 3, 4, 4)
    assert torch.equal(total(values), values.sum(1))
