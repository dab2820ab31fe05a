from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dissect.errors import SpecError
from dissect.inversion import adversarial, fooling
from dissect.inversion.adversarial import Search, nearest_on_plane
from dissect.inversion.lbfgs import minimise
from dissect.inversion.network import Network
from tests.dissect.inversion.nets import grey_photos, linear, small


def quadratic(count: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    roots = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    matrices = roots @ roots.transpose(1, 2) + torch.eye(size, dtype=torch.float64) * 0.3
    return matrices, torch.randn(count, size, generator=generator, dtype=torch.float64) * 3


@cache
def trained_digits() -> tuple[Network, Tensor]:
    """A small network that reads digits of 12 pixels, and six of them as an 8-bit file gives them."""
    images, labels = fooling.digits(600, 0, 12)
    module = fooling.train(
        lambda classes: fooling.small_network(classes, 12), 10, fooling.DIGIT_PIXELS.from_uint8(images),
        torch.from_numpy(labels), fooling.DIGIT_PIXELS, 8, 0,
    )  # fmt: skip
    network = Network(module, fooling.DIGIT_PIXELS, (12, 12), "digits")
    return network, fooling.DIGIT_PIXELS.from_uint8(fooling.digits(6, 1, 12)[0])


def energy_of(matrices: Tensor, shifts: Tensor, trace: list | None = None):
    def energy(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        product = torch.einsum("bij,bj->bi", matrices[rows], x)
        if trace is not None:
            trace.append((x.clone(), rows.clone()))
        return (x * product).sum(1) / 2 - (shifts[rows] * x).sum(1), product - shifts[rows]

    return energy


def test_unbounded_quadratics_are_solved() -> None:
    matrices, shifts = quadratic(5, 12, 0)
    wide = torch.full((1, 12), 1e6, dtype=torch.float64)
    found = minimise(
        energy_of(matrices, shifts), torch.zeros(5, 12, dtype=torch.float64), -wide, wide, 300, tolerance=1e-6
    )
    torch.testing.assert_close(found.x, torch.linalg.solve(matrices, shifts), rtol=1e-4, atol=1e-5)
    assert bool(found.converged.all())


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_in_a_box_the_conditions_of_a_minimum_hold(seed: int) -> None:
    """Against the oracle: projected gradient descent run to the end."""
    matrices, shifts = quadratic(3, 8, seed)
    low, high = torch.full((1, 8), -0.5, dtype=torch.float64), torch.full((1, 8), 0.4, dtype=torch.float64)
    trace: list = []
    found = minimise(
        energy_of(matrices, shifts, trace), torch.zeros(3, 8, dtype=torch.float64), low, high, 400, tolerance=1e-9
    )
    assert all(bool(((x >= low) & (x <= high)).all()) for x, _ in trace)
    x = torch.zeros(3, 8, dtype=torch.float64)
    step = 1 / torch.linalg.matrix_norm(matrices, 2)[:, None]
    for _ in range(20000):
        moved = (x - step * (torch.einsum("bij,bj->bi", matrices, x) - shifts)).clamp(low, high)
        if float((moved - x).abs().max()) < 1e-13:
            break
        x = moved
    torch.testing.assert_close(found.x, x, rtol=0, atol=1e-5)


def test_rows_are_independent_and_evaluations_are_counted_one_by_one() -> None:
    matrices, shifts = quadratic(6, 9, 4)
    shifts[2] = 0  # already at its minimum
    box = torch.full((1, 9), 0.7, dtype=torch.float64)
    trace: list = []
    together = minimise(energy_of(matrices, shifts, trace), torch.zeros(6, 9, dtype=torch.float64), -box, box)
    counted = torch.zeros(6, dtype=torch.int64)
    for _, rows in trace:
        counted[rows] += 1
    assert torch.equal(counted, together.evaluations)
    assert int(together.evaluations[2]) == 1
    for i in range(6):
        alone = minimise(
            energy_of(matrices[i : i + 1], shifts[i : i + 1]), torch.zeros(1, 9, dtype=torch.float64), -box, box
        )
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-8, atol=1e-9)
        assert int(alone.evaluations[0]) == int(together.evaluations[i])


def test_energies_never_rise_also_on_a_crooked_function() -> None:
    def rosenbrock(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_(True)
        value = (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]

    start = torch.tensor([[-1.2, 1.0, -0.5, 0.8]] * 2, dtype=torch.float64)
    wide = torch.full((1, 4), 5.0, dtype=torch.float64)
    values = [float(minimise(rosenbrock, start, -wide, wide, n).value[0]) for n in range(0, 60, 5)]
    assert all(b <= a for a, b in zip(values, values[1:]))
    assert minimise(rosenbrock, start, -wide, wide, 500).x.sub(1).abs().max() < 1e-4


def test_a_function_that_is_not_finite_beyond_a_wall_stops_at_the_wall() -> None:
    def walled(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        value = ((x - 2) ** 2).sum(1)
        return torch.where(x.amax(1) > 1, torch.nan, value), 2 * (x - 2)

    box = torch.full((1, 2), 9.0, dtype=torch.float64)
    found = minimise(walled, torch.zeros(1, 2, dtype=torch.float64), -box, box)
    assert bool(torch.isfinite(found.value).all())
    assert float(found.x.max()) <= 1


def distances(network, z: Tensor, attack) -> np.ndarray:
    """Closed form |margin| / ||w_t - w_y|| of a linear model, on pixels 0..1."""
    weight = network.module[1].weight.detach()
    std = torch.tensor(network.pixels.std, dtype=weight.dtype).repeat_interleave(weight.shape[1] // 3)
    logits = network.logits(z).detach()
    rows = torch.arange(len(z))
    margin = logits[rows, attack.labels] - logits[rows, attack.targets]
    return (margin / ((weight[attack.labels] - weight[attack.targets]) / std).norm(dim=1)).numpy()


def test_on_a_linear_model_the_search_over_c_alone_hits_the_closed_form() -> None:
    network = linear(2)
    z = grey_photos(6, network)
    targets = adversarial.runners_up(network, z)
    attack = adversarial.minimal(network, z, targets, Search(width=2e-4, iterations=200, polish=0))
    assert attack.success.all()
    np.testing.assert_allclose(attack.paper_norm / distances(network, z, attack), 1, atol=5e-4)


@pytest.mark.parametrize("classes", [2, 5])
def test_on_a_linear_model_the_polished_distance_is_the_closed_form(classes: int) -> None:
    network = linear(classes)
    z = grey_photos(5, network)
    targets = adversarial.runners_up(network, z)
    attack = adversarial.minimal(network, z, targets)
    np.testing.assert_allclose(attack.norm / distances(network, z, attack), 1, atol=5e-4)
    assert (attack.norm <= attack.paper_norm + 1e-12).all()


def test_where_the_box_is_active_the_minimum_is_that_of_the_quadratic_program() -> None:
    """Nearly white pictures whose way out of the class leads further up: most pixels have no room."""
    network = linear(2)
    z = network.pixels.from_pixels(
        0.9 + 0.099 * torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )
    targets = adversarial.runners_up(network, z)
    attack = adversarial.minimal(network, z, targets, Search(width=1e-3))
    weight = network.module[1].weight.detach() / torch.tensor(
        network.pixels.std, dtype=torch.float64
    ).repeat_interleave(36)
    logits = network.logits(z).detach()
    rows = torch.arange(4)
    margin = logits[rows, attack.labels] - logits[rows, attack.targets]
    x0 = network.pixels.to_pixels(z).flatten(1)
    oracle = nearest_on_plane(weight[attack.targets] - weight[attack.labels], margin, -x0, 1 - x0).norm(dim=1)
    free = distances(network, z, attack)
    assert (oracle.numpy() > 1.02 * free).any()
    np.testing.assert_allclose(attack.norm / oracle.numpy(), 1, atol=2e-3)


@given(st.integers(0, 10**6), st.floats(0.05, 0.95))
@settings(max_examples=30, deadline=None)
def test_nearest_point_on_a_plane_in_a_box(seed: int, share: float) -> None:
    """The conditions of a minimum: on the plane, in the box, and r parallel to w where no bound is active."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    lower, upper = (
        -torch.rand(3, 7, generator=generator, dtype=torch.float64),
        torch.rand(3, 7, generator=generator, dtype=torch.float64),
    )
    b = share * torch.where(w > 0, upper * w, lower * w).sum(1)
    r = nearest_on_plane(w, b, lower, upper)
    torch.testing.assert_close((w * r).sum(1), b, rtol=1e-9, atol=1e-9)
    assert bool(((r >= lower) & (r <= upper)).all())
    for row in range(3):
        free = (r[row] > lower[row]) & (r[row] < upper[row])
        ratio = r[row][free] / w[row][free]
        if len(ratio):
            assert float(ratio.max() - ratio.min()) < 1e-9
            held = ~free
            assert bool((torch.abs(r[row][held]) <= torch.abs(ratio[0] * w[row][held]) + 1e-9).all())


def test_pictures_are_legal_to_the_bit_and_counts_are_exact() -> None:
    network = small((8, 8))
    calls = [0]
    network.module.one.register_forward_hook(lambda m, i, o: calls.__setitem__(0, calls[0] + len(o)))
    z = grey_photos(3, network)
    targets = adversarial.runners_up(network, z)
    labels = adversarial.predictions(network, z)
    calls[0] = 0
    attack = adversarial.minimal(network, z, targets, Search(iterations=20, polish=3))
    counted = calls[0]
    assert attack.success.all()
    assert float(attack.images.min()) >= 0
    assert float(attack.images.max()) <= 1
    assert torch.equal(adversarial.predictions(network, adversarial.to_z(network, attack.images)), targets)
    assert counted - len(z) == int(attack.evaluations.sum())  # one pass for the labels is not the search's
    assert torch.equal(attack.labels, labels)


def test_never_worse_than_long_pgd_at_equal_budget() -> None:
    network, z = trained_digits()
    targets = adversarial.runners_up(network, z)
    attack = adversarial.minimal(network, z, targets, Search(iterations=30))
    baseline = adversarial.pgd_minimal(network, z, targets, int(attack.evaluations.mean()))
    assert baseline.success.all()
    assert (attack.norm <= baseline.norm * 1.001).all()


def test_storing_with_eight_bits_is_judged_on_what_is_stored() -> None:
    network, z = trained_digits()
    attack = adversarial.minimal(network, z, adversarial.runners_up(network, z), Search(iterations=20, polish=3))
    stored = adversarial.quantised_norm(network, attack, [1.0, 1.2, 1.5, 2.0, 4.0])
    survived = adversarial.quantised_success(network, attack.images, attack.targets)
    assert np.isfinite(stored).all()
    assert (stored[~survived] > attack.norm[~survived]).all()
    original = adversarial.quantised_success(network, attack.originals, attack.targets)
    assert not original.any()


def test_transfer_has_a_diagonal_of_one_and_a_twin_of_one() -> None:
    networks = [small((8, 8), seed=s) for s in (0, 0, 3)]
    z = grey_photos(3, networks[0])
    attacks = [
        adversarial.minimal(n, z, adversarial.runners_up(n, z), Search(iterations=20, polish=2)) for n in networks
    ]
    matrix = adversarial.transfer(networks, attacks)
    assert np.array_equal(np.diag(matrix), np.ones(3))
    assert matrix[0, 1] == 1
    assert matrix[0, 2] < 1


def test_sign_attacks_stay_near_and_pgd_is_no_weaker_than_fgsm() -> None:
    network = small((12, 12))
    z = grey_photos(6, network)
    labels = adversarial.predictions(network, z)
    rates = {}
    for name, steps in (("fgsm", 1), ("pgd", 30)):
        moved = adversarial.sign_attack(network, z, labels, 4.0, steps, targeted=False)
        assert float((moved - z).abs().max()) <= 4.0 * (1 + 1e-6)
        rates[name] = torch.nn.functional.cross_entropy(network.logits(moved), labels)
    assert rates["pgd"] >= rates["fgsm"]
    one = adversarial.sign_attack(network, z, labels, 4.0, 1, targeted=False)
    inside = (z > network.pixels.limits(z)[0] + 4) & (z < network.pixels.limits(z)[1] - 4)
    torch.testing.assert_close((one - z).abs()[inside], torch.full_like(z, 4.0)[inside], rtol=0, atol=1e-3)


def test_wrong_targets_are_refused() -> None:
    network = small((12, 12), classes=5)
    z = grey_photos(2, network)
    with pytest.raises(SpecError, match="class 9 is out of range"):
        adversarial.minimal(network, z, torch.tensor([9, 0]))
    with pytest.raises(SpecError, match="image 0 is already seen as class"):
        adversarial.minimal(network, z, adversarial.predictions(network, z))
