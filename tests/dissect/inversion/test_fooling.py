import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dissect import reference
from dissect.errors import SpecError
from dissect.inversion import elites, fooling, patterns
from dissect.inversion.elites import Archive, Compositional, Direct, Encoding, Plan
from dissect.inversion.network import Network
from dissect.inversion.patterns import Pattern

PIXELS = fooling.DIGIT_PIXELS


def network(side: int = 12) -> Network:
    torch.manual_seed(0)
    module = fooling.small_network(6, side)
    for layer in module:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, std=2 / math.sqrt(layer.weight[0].numel()))
    return Network(module, PIXELS, (side, side), "random")


ENCODINGS: list[Encoding[Any]] = [Direct(1, 12, 12), Compositional(1, 12, 12)]


def test_polynomial_mutation_has_its_density() -> None:
    """Kolmogorov-Smirnov against the integral of (eta + 1) / 2 (1 - |d|)^eta."""
    steps = np.sort(patterns.polynomial(np.random.default_rng(0), (20000,), 15.0))
    integral = np.where(steps < 0, 0.5 * (1 + steps) ** 16, 1 - 0.5 * (1 - steps) ** 16)
    distance = np.abs(integral - (np.arange(20000) + 0.5) / 20000).max()
    assert distance < 1.95 / math.sqrt(20000)
    assert np.abs(steps).max() < 1


def slow_render(pattern: Pattern, height: int, width: int) -> np.ndarray:
    """Neuron by neuron, pixel by pixel."""
    n, outputs = len(pattern.kinds), pattern.outputs
    bends = [
        math.sin,
        lambda t: 2 / (1 + math.exp(-t)) - 1,
        lambda t: math.exp(-t * t),
        lambda t: max(-10.0, min(10.0, t)),
    ]
    out = np.zeros((outputs, height, width))
    for row in range(height):
        for column in range(width):
            x, y = column / (width - 1) * 2 - 1, row / (height - 1) * 2 - 1
            values = [x, y, math.hypot(x, y) / math.sqrt(2), 1.0]
            for k in range(4, n):
                links = [j for j in range(n) if not math.isnan(pattern.weights[k, j])]
                total = sum(float(pattern.weights[k, j]) * values[j] for j in links)
                values.append(1 / (1 + math.exp(-total)) if k >= n - outputs else bends[pattern.kinds[k]](total))
            out[:, row, column] = values[n - outputs :]
    return out


def evolved(count: int, outputs: int, changes: int = 25) -> list[Pattern]:
    rng = np.random.default_rng(1)
    made = [patterns.random_pattern(rng, outputs) for _ in range(count)]
    for _ in range(changes):
        made = [patterns.mutate(one, rng) for one in made]
    return made


def test_batched_rendering_equals_the_slow_one() -> None:
    made = evolved(6, 1)
    assert len({len(one.kinds) for one in made}) > 1
    drawn = patterns.render(made, 7, 9).numpy()
    for one, picture in zip(made, drawn):
        np.testing.assert_allclose(picture, slow_render(one, 7, 9), atol=2e-5)


def test_colour_is_hue_lightness_saturation() -> None:
    import colorsys

    values = torch.rand(1, 3, 50, generator=torch.Generator().manual_seed(0))
    found = reference.double_cone(*values[0]).T.numpy()
    expected = [colorsys.hls_to_rgb(*(float(v) for v in column)) for column in values[0].T]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_patterns_stay_lawful_under_mutation() -> None:
    for pattern in evolved(20, 3, 60):
        n = len(pattern.kinds)
        receivers, senders = np.nonzero(~np.isnan(pattern.weights))
        assert (senders < receivers).all()  # the order is one of evaluation: no loops
        assert (receivers >= patterns.INPUTS).all()
        assert (senders < n - 3).all()
        assert np.nanmax(np.abs(pattern.weights), initial=0) <= patterns.REACH
        assert n <= patterns.MOST + 3
        assert list(pattern.kinds[:4]) == [-1] * 4
        assert list(pattern.kinds[-3:]) == [-2] * 3
        assert ((pattern.kinds[4:-3] >= 0) & (pattern.kinds[4:-3] < 4)).all()


def test_a_new_neuron_stands_between_the_ends_of_its_connection() -> None:
    rng = np.random.default_rng(0)
    before = patterns.random_pattern(rng, 1)
    after = patterns._add_neuron(before, rng)
    assert len(after.kinds) == len(before.kinds) + 1
    assert (~np.isnan(after.weights)).sum() == (~np.isnan(before.weights)).sum() + 1
    back = patterns._drop_neuron(Pattern(after.kinds, after.weights), np.random.default_rng(3))
    assert len(back.kinds) == len(before.kinds)


def test_packing_patterns_keeps_every_bit() -> None:
    made = evolved(5, 3)
    again = patterns.unpack(patterns.pack(made))
    for one, other in zip(made, again):
        assert one.kinds.tobytes() == other.kinds.tobytes()
        assert one.weights.tobytes() == other.weights.tobytes()


def test_a_child_competes_in_every_cell_and_ties_change_nothing() -> None:
    archive: Archive[str] = Archive(np.array([0.5, 0.2, 0.9]), ["a", "b", "c"], np.zeros(3, np.int64))
    archive.generation = 4
    scores = np.array([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.6, 0.1, 0.9]])
    won = elites.compete(archive, scores, ["x", "y", "z"])
    assert archive.genomes == ["y", "x", "c"]  # of equal children the first; an equal champion stays
    assert archive.fitness.tolist() == [0.6, 0.3, 0.9]
    assert archive.born.tolist() == [4, 4, 0]
    assert won.tolist() == [0, 1]
    assert archive.evaluations == 3


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.name)
def test_fitness_never_falls_and_evaluations_are_exact(encoding: Encoding[Any]) -> None:
    net = network()
    counted = [0]
    net.module[0].register_forward_hook(lambda m, i, o: counted.__setitem__(0, counted[0] + len(o)))
    seen: list[np.ndarray] = []
    archive = elites.evolve(net, encoding, Plan(17, 23, 9), watch=lambda a: seen.append(a.fitness.copy()))
    assert all((later >= earlier).all() for earlier, later in zip(seen, seen[1:]))
    assert archive.evaluations == 17 + 9 * 23 == counted[0]
    drawn = elites.confidences(net, encoding.draw(archive.genomes), 6)
    np.testing.assert_allclose(
        drawn[np.arange(6), np.arange(6)], archive.fitness, rtol=1e-5
    )  # rows are what they claim
    assert [e for e, _, _ in archive.history] == [17 + 23 * g for g in range(10)]


class Killed(Exception):
    pass


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.name)
def test_a_killed_archive_resumes_to_the_same_bits(encoding: Encoding[Any], tmp_path: Path) -> None:
    def kill(archive: Archive[Any]) -> None:
        if archive.generation == 7:
            raise Killed

    net, plan, file = network(), Plan(20, 20, 12, seed=3), tmp_path / "archive.npz"
    whole = elites.evolve(net, encoding, plan)
    with pytest.raises(Killed):
        elites.evolve(net, encoding, plan, state_file=file, save_every=3, watch=kill)
    resumed = elites.evolve(net, encoding, plan, state_file=file, save_every=3)
    assert resumed.fitness.tobytes() == whole.fitness.tobytes()
    assert torch.equal(encoding.draw(resumed.genomes), encoding.draw(whole.genomes))
    assert resumed.history == whole.history
    assert resumed.born.tolist() == whole.born.tolist()
    with pytest.raises(SpecError, match="archive of another search"):
        elites.evolve(net, encoding, Plan(20, 20, 12, seed=4), state_file=file)
    longer = elites.evolve(net, encoding, Plan(20, 20, 14, seed=3), state_file=file)
    assert longer.generation == 14


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.name)
def test_breeding_beats_random_search_at_equal_evaluations(encoding: Encoding[Any]) -> None:
    """The stated factor: the median distance from certainty, 1 - confidence, is at most half of random search's."""
    net = trained(10)
    plan = Plan(100, 100, 60)
    bred = elites.evolve(net, encoding_of(encoding, net), plan)
    drawn = elites.evolve(net, encoding_of(encoding, net), Plan(100, 100, 60, breed=False))
    assert bred.evaluations == drawn.evaluations
    assert 1 - np.median(bred.fitness) < 0.5 * (1 - np.median(drawn.fitness))


def encoding_of(encoding: Encoding[Any], net: Network) -> Encoding[Any]:
    return fooling.encoding(encoding.name, net)


def trained(classes: int) -> Network:
    images, labels = fooling.digits(800, 0, 12)
    module = fooling.train(
        lambda n: fooling.small_network(n, 12),
        classes,
        PIXELS.from_uint8(images),
        torch.from_numpy(labels),
        PIXELS,
        5,
        0,
    )
    return Network(module, PIXELS, (12, 12), "digits")


def test_the_gradient_route_fools_and_stays_legal() -> None:
    net = trained(10)
    made = fooling.by_gradient(net, list(range(10)), steps=80)
    stored = net.pixels.quantise(made.images)
    confidence = net.logits(stored).softmax(1)[range(10), range(10)]
    assert float(confidence.median()) > 0.9
    low, high = net.pixels.limits(made.images)
    assert bool(((made.images >= low) & (made.images <= high)).all())
    with pytest.raises(SpecError, match="class 12 is out of range"):
        fooling.by_gradient(net, [12])


def test_retraining_with_a_fooling_class_does_not_end_the_fooling() -> None:
    told: list[fooling.Round] = []
    rounds, pictures = fooling.retraining(
        fooling.digits(800, 0), fooling.digits(300, 1), PIXELS, "cppn", Plan(100, 100, 25), 2, tell=told.append
    )
    assert told == rounds
    assert [r.classes for r in rounds] == [10, 11]
    assert rounds[0].fooling_in_training == 0
    assert rounds[1].fooling_in_training >= 10
    assert rounds[1].old_pictures_caught is not None
    assert rounds[1].old_pictures_caught > 0.8  # the new class is learnt …
    assert min(r.test_accuracy for r in rounds) > 0.9  # … the digits are not forgotten …
    assert rounds[1].median_confidence > 0.9  # … and new pictures fool as before
    assert pictures[0].shape == (10, 28, 28, 1)


def test_digits_are_a_set_that_is_learnt_and_repeats() -> None:
    images, labels = fooling.digits(40, 5)
    again, _ = fooling.digits(40, 5)
    assert np.array_equal(images, again)
    assert not np.array_equal(images, fooling.digits(40, 6)[0])
    assert np.bincount(labels).tolist() == [4] * 10
    assert images.dtype == np.uint8
    assert images.max() > 150


def test_wrong_plans_and_encodings_are_refused() -> None:
    with pytest.raises(SpecError, match="offspring >= 1"):
        Plan(offspring=0)
    with pytest.raises(SpecError, match="encoding 'gan' is unknown"):
        fooling.encoding("gan", network())


def test_raw_coordinates_draw_another_picture() -> None:
    made = evolved(3, 1)
    assert not torch.equal(patterns.render(made, 12, 12), patterns.render(made, 12, 12, raw=True))


def test_winners_are_told(tmp_path: Path) -> None:
    entered: list[float] = []

    def note(genomes: Sequence[Any], fitness: np.ndarray) -> None:
        assert len(genomes) == len(fitness)
        entered.extend(fitness.tolist())

    archive = elites.evolve(network(), ENCODINGS[0], Plan(10, 10, 3), entered=note)
    assert len(entered) >= 6
    assert set(archive.fitness.tolist()) <= set(entered)


@pytest.mark.parametrize("name", fooling.ENCODINGS)
def test_a_genome_survives_the_database_and_draws_the_same_picture(name: str) -> None:
    code = fooling.encoding(name, network())
    rng = np.random.default_rng(3)
    genome = code.random(rng)
    data = elites.stored(code, genome)
    assert elites.stored(code, genome) == data
    torch.testing.assert_close(code.draw([elites.restored(code, data)]), code.draw([genome]), rtol=0, atol=0)
