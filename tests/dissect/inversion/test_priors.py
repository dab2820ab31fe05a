"""Values against loops, gradients against finite differences, normalisations against images built to give 1."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dissect.errors import SpecError
from dissect.inversion.priors import (
    AlphaNorm,
    AlphaSum,
    Decay,
    Natural,
    Prior,
    TotalVariation,
    VariationSum,
    total_variation,
)

PRIORS: list[Prior] = [
    *(TotalVariation(beta, 3.0) for beta in (1.0, 1.5, 2.0)),
    *(VariationSum(beta) for beta in (1.0, 1.5, 2.0)),
    *(AlphaNorm(alpha, 5.0) for alpha in (1.0, 2.0, 6.0)),
    *(Natural(6.0, 5.0, beta, 3.0) for beta in (1.0, 1.5, 2.0)),
    AlphaSum(6.0),
    AlphaSum(2.0),
    Decay(),
]


def numeric(prior: Prior, z: Tensor, step: float = 1e-3) -> Tensor:
    """Central differences over five points."""
    out = torch.zeros_like(z)
    for i in range(z.numel()):
        total = 0.0
        for shift, weight in ((2, -1), (1, 8), (-1, -8), (-2, 1)):
            moved = z.clone()
            moved.view(-1)[i] += shift * step
            total += weight * float(prior(moved).sum())
        out.view(-1)[i] = total / (12 * step)
    return out


def close(gradient: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()) + 1e-9)


@pytest.mark.parametrize("prior", PRIORS, ids=str)
@pytest.mark.parametrize("start", ["random", "flat", "partly flat", "zero"])
def test_gradient_equals_finite_differences(prior: Prior, start: str) -> None:
    """v = 0 included: the central difference of an even function is 0 there, and so must the gradient be."""
    z = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 4
    if start == "flat":
        z = torch.full_like(z, 2.5)
    elif start == "zero":
        z = torch.zeros_like(z)
    elif start == "partly flat":
        z[:, :, :2, :3] = 1.0
    z.requires_grad_(True)
    (gradient,) = torch.autograd.grad(prior(z).sum(), z)
    assert bool(torch.isfinite(gradient).all())
    if start == "partly flat" and isinstance(prior, TotalVariation | VariationSum | Natural) and prior.beta < 2:
        # beta < 2 has a kink where only one of two neighbours' differences is 0: compare where it is smooth.
        inside = torch.zeros_like(z, dtype=torch.bool)
        inside[:, :, 0, 0] = inside[:, :, 3:, 4:] = True
        close(gradient[inside], numeric(prior, z.detach())[inside])
        return
    close(gradient, numeric(prior, z.detach()))


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_total_variation_is_the_sum_in_the_lecture(beta: float) -> None:
    z = torch.randn(1, 2, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    total = 0.0
    for c in range(2):
        for y in range(4):
            for x in range(3):
                dx = z[0, c, y, x + 1] - z[0, c, y, x] if x < 2 else 0.0
                dy = z[0, c, y + 1, x] - z[0, c, y, x] if y < 3 else 0.0
                total += float(dx**2 + dy**2) ** (beta / 2)
    assert math.isclose(float(total_variation(z, beta)), total, rel_tol=1e-12)


def test_alpha_norm_is_one_where_every_pixel_has_length_b() -> None:
    z = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    z = z / z.norm(dim=1, keepdim=True) * 80
    torch.testing.assert_close(AlphaNorm(6.0, 80.0)(z), torch.ones(2, dtype=torch.float64))


def test_total_variation_is_one_where_the_gradient_is_v_everywhere() -> None:
    """A ramp in one plane, wide enough for its last column (of no difference) not to count: exactly (w - 1) / w."""
    v, width = 80 / 6.5, 400
    ramp = (torch.arange(width, dtype=torch.float64) * v).view(1, 1, 1, -1).expand(1, 1, 7, -1)
    for beta in (1.0, 1.5, 2.0):
        found = float(TotalVariation(beta, v)(ramp))
        assert math.isclose(found, (width - 1) / width, rel_tol=1e-12)


@given(st.floats(0.1, 50), st.sampled_from([1.0, 1.5, 2.0]))
@settings(max_examples=25, deadline=None)
def test_scaling_law(scale: float, beta: float) -> None:
    z = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, right = total_variation(z * scale, beta), total_variation(z, beta) * scale**beta
    torch.testing.assert_close(left, right, rtol=1e-10, atol=0)


def test_samples_do_not_mix() -> None:
    z = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    for prior in PRIORS:
        torch.testing.assert_close(prior(z), torch.cat([prior(one[None]) for one in z]))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SpecError, match="beta >= 1"):
        TotalVariation(0.5, 1.0)
    with pytest.raises(SpecError, match="B > 0"):
        AlphaNorm(6.0, 0.0)
