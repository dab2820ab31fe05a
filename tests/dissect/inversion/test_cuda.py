"""The same optimisation on a GPU, to stated tolerances, where one is at hand."""

import numpy as np
import pytest
import torch

from dissect.inversion import adversarial, fooling, invert, maximize, patterns
from dissect.inversion.network import Network
from tests.dissect.inversion.nets import RANGE, Small, grey_photos, small

pytestmark = pytest.mark.cuda


def on(device: str) -> Network:
    torch.manual_seed(0)
    return Network(Small(3, 5).to(device), RANGE, (24, 24))


def test_a_short_inversion_agrees(device: str) -> None:
    photos = grey_photos(2, small((24, 24)))
    recipe = invert.Recipe(shorter=35, restarts=2, typical="measured")
    cpu, gpu = (invert.invert(on(d), photos, "two", recipe) for d in ("cpu", device))
    np.testing.assert_allclose(gpu.feature_error, cpu.feature_error, rtol=0.02)


def test_recipes_run_and_agree_in_their_first_steps(device: str) -> None:
    for name in ("fourier", "pattern", "inceptionism"):
        made = []
        for d in ("cpu", device):
            network = on(d)
            target = maximize.units(network, "three", [0, 3])
            made.append(maximize.maximize(network, target, maximize.Recipe(name, shorter=200)).images.cpu())
        assert float((made[0] - made[1]).abs().mean()) < 1.0


def test_patterns_are_drawn_alike(device: str) -> None:
    rng = np.random.default_rng(0)
    made = [patterns.random_pattern(rng, 3) for _ in range(8)]
    for _ in range(10):
        made = [patterns.mutate(one, rng) for one in made]
    drawn = [patterns.render(made, 16, 16, device=d).cpu() for d in ("cpu", device)]
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=1e-3)


def test_minimal_perturbations_agree(device: str) -> None:
    z = grey_photos(3, small((24, 24)))
    found = []
    for d in ("cpu", device):
        network = on(d)
        targets = adversarial.runners_up(network, z.to(d))
        found.append(adversarial.minimal(network, z, targets, adversarial.Search(iterations=20)))
    assert found[0].success.all() == found[1].success.all()
    np.testing.assert_allclose(found[0].norm, found[1].norm, rtol=0.1)


def test_gradient_fooling_runs(device: str) -> None:
    network = on(device)
    assert fooling.by_gradient(network, [0, 1], steps=3).images.device.type == "cuda"
