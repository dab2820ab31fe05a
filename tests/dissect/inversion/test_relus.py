import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.inversion.relus import LeakyRelus, ReluSpreads, RoundedRelus, rounded


def spellings(x: Tensor) -> list[Tensor]:
    return [
        F.relu(x),
        torch.relu(x),
        x.relu(),
        nn.ReLU()(x),
        nn.ReLU(inplace=True)(x.clone()),
        torch.relu_(x.clone()),
        x.clone().relu_(),
        F.relu_(x.clone()),
    ]


def test_every_spelling_of_relu_leaks() -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 3.0])
    with LeakyRelus(0.05):
        found = spellings(x)
    for value in found:
        torch.testing.assert_close(value, torch.tensor([-0.1, -0.025, 0.0, 3.0]))
    for value in spellings(x):
        assert torch.equal(value, torch.tensor([0.0, 0.0, 0.0, 3.0]))


def test_relu6_keeps_its_top_and_other_clips_stay_themselves() -> None:
    x = torch.tensor([-2.0, 3.0, 9.0])
    with LeakyRelus(0.1):
        torch.testing.assert_close(nn.ReLU6()(x), torch.tensor([-0.2, 3.0, 6.0]))
        torch.testing.assert_close(nn.Hardtanh()(x), torch.tensor([-1.0, 1.0, 1.0]))


def test_a_rounded_relu_is_relu_outside_its_bend_and_has_its_integral() -> None:
    x = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    width = torch.tensor(1.25, dtype=torch.float64)
    found, off = rounded(x, width), rounded(x, width) - F.relu(x)
    torch.testing.assert_close(found[x.abs() >= 1.25], F.relu(x)[x.abs() >= 1.25])
    assert abs(float(off.sum()) * 1e-4) < 1e-6
    assert float(off.max()) == pytest.approx(1.25 * 5 / 64)
    assert float(off.min()) < -0.02
    # In units of the bend it is always the same curve.
    torch.testing.assert_close(rounded(x / 2, width / 2), found / 2)
    torch.testing.assert_close(rounded(x, torch.zeros_like(width)), F.relu(x))


def test_the_slope_of_a_rounded_relu_is_its_derivative_and_has_no_edge() -> None:
    x = torch.linspace(-2, 2, 4_001, dtype=torch.float64).requires_grad_(True)
    width = torch.full((), 1.5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: rounded(x, width), (x[::97].detach().requires_grad_(True),))
    (slope,) = torch.autograd.grad(rounded(x, width).sum(), x)
    bends = slope.diff() / 1e-3
    assert float(bends.diff().abs().max()) < 0.01  # the second derivative has no jump either
    torch.testing.assert_close(slope + slope.flip(0), torch.ones_like(slope))


def test_every_spelling_of_relu_is_seen_and_rounded_row_by_row_in_the_order_of_calls() -> None:
    x = torch.tensor([[-2.0, -0.5, 0.0, 3.0], [8.0, 4.0, -4.0, 8.0]])
    with ReluSpreads() as seen:
        found = spellings(x)
    assert all(torch.equal(value, F.relu(x)) for value in found)
    assert len(seen.spreads) == len(found)
    for spread in seen.spreads:
        torch.testing.assert_close(spread, x.std(1, correction=0))
    widths = [(i + 1) * spread for i, spread in enumerate(seen.spreads)]
    with RoundedRelus(widths):
        found = spellings(x)
    for value, width in zip(found, widths):
        torch.testing.assert_close(value, rounded(x, width[:, None]))
    assert torch.equal(nn.ReLU()(x), F.relu(x))
