"""Other people's implementations, where they are right, and where they are known not to be: zennit and captum.

zennit is one of the packages of the tests; captum brings a plotting library, so it is asked only where it is installed
(`pip install dissect[oracles]`).
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.attribution import METHODS, attribute, class_target, grad_cam, integrated_gradients, occlude
from dissect.attribution.rules import epsilon_rule
from tests.dissect.attribution import nets, oracle


class Shared(nn.Module):
    """x + conv(relu(x)), all ReLUs modules: what enters a ReLU has a second reader."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 4)
        self.relu, self.after = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return self.last(self.after(x + self.two(self.relu(x))).mean((2, 3)))


def chain(bias: bool = True) -> nn.Module:
    """Modules only, with pools that do not overlap."""
    return nets.seeded(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=bias), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, bias=bias),
            nn.ReLU(), nn.Flatten(), nn.Linear(80, 4, bias=bias),
        )
    )  # fmt: skip


def relevance(composite: Any, module: nn.Module, x: Tensor, score: Tensor | None = None) -> Tensor:
    """What zennit hands down to the image for class 2: from 1, or from the score."""
    attribution = pytest.importorskip("zennit.attribution", reason="zennit is not installed")
    start = torch.eye(4, dtype=x.dtype)[[2]] * (1 if score is None else score)
    with attribution.Gradient(model=module, composite=composite) as attributor:
        return attributor(x.clone(), start)[1]


@pytest.fixture
def zennit() -> Any:
    pytest.importorskip("zennit", reason="zennit is not installed")
    import zennit.composites
    import zennit.rules

    return zennit


@pytest.fixture
def captum() -> Any:
    return pytest.importorskip("captum.attr", reason="captum is not installed: pip install dissect[oracles]")


# ReLU rules -----------------------------------------------------------------------------------------------------------

NETS = {
    "reused module": lambda: nets.seeded(nets.Spelt("module")),
    "in-place": lambda: nets.seeded(nets.Spelt("in-place module")),
    "chain": chain,
    "shared input": lambda: nets.seeded(Shared()),
}


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("name", NETS)
def test_zennit_has_the_same_rules(zennit: Any, name: str, rule: str) -> None:
    module, x = NETS[name](), nets.image()
    composite = {"guided": zennit.composites.GuidedBackprop, "deconvnet": zennit.composites.DeconvNet}[rule]()
    ours = attribute(nets.wrap(module), x, class_target(2), rule).values
    torch.testing.assert_close(ours, relevance(composite, module, x), rtol=1e-12, atol=1e-14)


def by_captum(captum: Any, rule: str, module: nn.Module, x: Tensor) -> Tensor:
    method = {"guided": captum.GuidedBackprop, "deconvnet": captum.Deconvolution}[rule](module)
    return method.attribute(x.clone().requires_grad_(), target=2).detach()


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("name", [name for name in NETS if name != "shared input"])
def test_captum_has_the_same_rules(captum: Any, name: str, rule: str) -> None:
    module, x = NETS[name](), nets.image()
    ours = attribute(nets.wrap(module), x, class_target(2), rule).values
    torch.testing.assert_close(ours, by_captum(captum, rule, module, x), rtol=1e-12, atol=1e-14)


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("name", ["functional", "shared input"])
def test_ours_is_right_where_hooks_on_modules_are_not(captum: Any, name: str, rule: str) -> None:
    """Hooks on modules never see F.relu; captum's, on the tensor that enters a ReLU, see what all its readers send."""
    module, x = nets.seeded(nets.Spelt("F.relu") if name == "functional" else Shared()), nets.image()
    right, _ = oracle.gradient(module, x, 2, rule)
    ours = attribute(nets.wrap(module), x, class_target(2), rule).values
    torch.testing.assert_close(ours, right, rtol=1e-12, atol=1e-14)
    error = float((by_captum(captum, rule, module, x) - right).abs().max() / right.abs().max())
    assert error > 0.1, "captum has learnt it: docs/attribution.md says otherwise"


# Relevance ------------------------------------------------------------------------------------------------------------


def test_zennit_has_the_same_epsilon_rule(zennit: Any) -> None:
    module, x = chain(), nets.image()
    layers = [
        (nn.Conv2d, zennit.rules.Epsilon(1e-6)),
        (nn.Linear, zennit.rules.Epsilon(1e-6)),
        (nn.ReLU, zennit.rules.Pass()),
    ]
    ours = attribute(nets.wrap(module), x, class_target(2), replace(METHODS["lrp-epsilon"], linear=epsilon_rule(1e-6)))
    expected = relevance(zennit.composites.LayerMapComposite(layers), module, x, ours.score)
    torch.testing.assert_close(ours.values, expected, rtol=1e-9, atol=1e-12)


def test_zennit_has_the_same_excitation(zennit: Any) -> None:
    module, x = chain(bias=False), nets.image()
    ours = attribute(nets.wrap(module), x, class_target(2), "excitation")
    expected = relevance(zennit.composites.ExcitationBackprop(), module, x, ours.score)
    torch.testing.assert_close(ours.values, expected, rtol=1e-4, atol=1e-7)  # zennit's stabiliser is 1e-6


# Gradients and perturbations ------------------------------------------------------------------------------------------


def test_captum_has_the_same_gradients(captum: Any) -> None:
    module, x, target = nets.seeded(nets.Residual()), nets.image(count=2), class_target(1)
    network = nets.wrap(module)

    def expected(theirs: Any, **settings: Any) -> Tensor:
        return theirs.attribute(x.clone().requires_grad_(), target=1, **settings).detach()

    torch.testing.assert_close(attribute(network, x, target).values, expected(captum.Saliency(module), abs=False))
    torch.testing.assert_close(
        attribute(network, x, target, "gradient-x-input").values, expected(captum.InputXGradient(module))
    )
    torch.testing.assert_close(
        attribute(network, x, target, integrated_gradients(9)).values,
        expected(captum.IntegratedGradients(module), baselines=0.0, n_steps=9, method="riemann_middle"),
    )
    small = captum.LayerGradCam(module, module.b).attribute(x.clone(), target=1, relu_attributions=True).detach()
    ours = grad_cam(network, x, target, "b")
    torch.testing.assert_close(ours.values, small)
    torch.testing.assert_close(ours.map[:, None], F.interpolate(small, size=x.shape[2:], mode="bilinear"))


@pytest.mark.parametrize(("patch", "stride"), [(4, 4), (4, 2), (5, 3)])
def test_captum_has_the_same_occlusion(captum: Any, patch: int, stride: int) -> None:
    module, x = nets.seeded(nets.Residual()), nets.image(side=12)
    expected = captum.Occlusion(module).attribute(x, (3, patch, patch), (3, stride, stride), baselines=0.0, target=1)
    ours = occlude(nets.wrap(module), x, class_target(1), patch, stride).map
    torch.testing.assert_close(ours.float(), expected[:, 0].float())
