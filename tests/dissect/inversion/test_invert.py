import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dissect.errors import DissectError, SpecError
from dissect.inversion import depth, draws, invert, preimages
from dissect.inversion.draws import Draws
from dissect.inversion.engine import Glance, run
from dissect.inversion.finish import ENOUGH, settle
from dissect.inversion.graduate import eased, several, through
from dissect.inversion.images import Pixels
from dissect.inversion.invert import Recipe
from dissect.inversion.lbfgs import minimise
from dissect.inversion.network import Network
from dissect.inversion.objectives import At, CodeError
from dissect.inversion.optimisers import Momentum
from dissect.inversion.priors import AlphaNorm, TotalVariation
from dissect.inversion.task import Phase, Stage, Task
from tests.dissect.inversion.nets import RANGE, grey_photos, small


def orthogonal(side: int = 6) -> Network:
    """A first layer that keeps everything: an orthogonal matrix over all values."""
    torch.manual_seed(0)
    layer = nn.Linear(3 * side * side, 3 * side * side, dtype=torch.float64)
    nn.init.orthogonal_(layer.weight)
    flat = nn.Sequential(nn.Flatten(), layer)
    # Equal std on all planes, or the whole would not be orthogonal in z.
    from dissect.inversion.pixels import InputRange

    return Network(flat, InputRange((0.5,) * 3, (0.25,) * 3), (side, side))


def test_an_orthogonal_first_layer_is_inverted_to_1e_6_by_the_engine() -> None:
    network = orthogonal()
    z = grey_photos(3, network)
    codes = network.codes(z, "1")
    seeds = draws.seeds(0, 3)
    start = draws.normal(seeds, tuple(z.shape[1:]), torch.float64) * 40
    score = At(network, "1", CodeError(codes))
    # |d phi|^2 = k |d z|^2, so this rate takes the energy down by the same factor at every step.
    scale = float((network.codes(z + 1, "1") - codes).square().sum() / torch.ones_like(z).square().sum())
    rate = 0.25 * float(codes.square().flatten(1).sum(1).min()) / scale
    found = run(Task(score, Pixels(start), (Phase(300, rate),), Momentum(0.5), seeds)).images
    assert float((found - z).flatten(1).norm(dim=1).max() / z.flatten(1).norm(dim=1).min()) < 1e-6


def test_an_orthogonal_first_layer_is_inverted_by_l_bfgs_too() -> None:
    network = orthogonal()
    z = grey_photos(2, network)
    score = At(network, "1", CodeError(network.codes(z, "1")))

    def energy(x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.detach().requires_grad_(True)
        values = CodeError(score.score.target[rows])(network.features(x.view(-1, *z.shape[1:]), ["1"])["1"])  # type: ignore[attr-defined]
        return values.detach(), torch.autograd.grad(values.sum(), x)[0]

    wide = torch.full((1, z[0].numel()), 1e4, dtype=torch.float64)
    found = minimise(energy, torch.zeros_like(z.flatten(1)), -wide, wide, tolerance=1e-12)
    assert float((found.x - z.flatten(1)).abs().max()) < 1e-6 * float(z.abs().max())


@pytest.mark.parametrize("setting", preimages.SETTINGS)
def test_a_shallow_layer_is_recovered_better_than_a_deep_one(setting: str) -> None:
    network = small((24, 24))
    photos = grey_photos(3, network)
    recipe = Recipe(setting, typical="measured", restarts=2, shorter=6.0 if setting == "spectrum" else 1.0)
    shallow, deep = (invert.invert(network, photos, layer, recipe) for layer in ("one", "three"))
    assert shallow.image_error.mean() < 0.6 * deep.image_error.mean()
    assert shallow.spread.mean() < deep.spread.mean()
    assert all(reason is None for reason in shallow.stopped + deep.stopped)


def test_a_larger_weight_keeps_more_of_the_code() -> None:
    network = small((24, 24))
    photos = grey_photos(2, network)
    loose, tight = (
        invert.invert(network, photos, "two", Recipe(weight=c, typical="measured")).feature_error.mean()
        for c in (1.0, 100.0)
    )
    assert tight < loose / 5


class Pooling(nn.Module):
    """A convolution whose answers a pooling of overlapping windows thins out: from noise, the wrong places win.
    The mean of them keeps no place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 24, 3, stride=2)
        self.pool = nn.MaxPool2d(3, 2)
        self.mean = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mean(self.pool(self.conv(x).relu()))


def test_over_the_spectrum_the_same_energy_falls_further() -> None:
    torch.manual_seed(1)
    network = Network(Pooling(), RANGE, (32, 32), "pooling")
    photos = grey_photos(2, network)
    published, ours = (
        invert.invert(network, photos, "pool", Recipe(setting, typical="measured", restarts=2, shorter=shorter))
        for setting, shorter in (("ijcv16", 1.0), ("spectrum", 6.0))
    )
    assert ours.energy[-1].mean() < 0.8 * published.energy[-1].mean()
    assert ours.feature_error.mean() < 0.8 * published.feature_error.mean()
    b, _ = preimages.typical(photos, Recipe(typical="measured"))
    assert float(ours.images.double().square().sum(2).sqrt().max()) <= 2 * b


def pooling(layer: str, shorter: float = 20) -> Task:
    """Two codes of a pooling or of its mean, with few steps, so that much stays wrong."""
    torch.manual_seed(1)
    network = Network(Pooling(), RANGE, (32, 32), "pooling")
    photos = grey_photos(2, network)
    recipe = Recipe("spectrum", typical="measured", shorter=shorter)
    scale = preimages.typical(photos, recipe)
    return preimages.plan(network, layer, recipe, network.codes(photos, layer), draws.seeds(0, len(photos)), scale)


def mending(again: int = 2, hops: int = 4) -> Task:
    task = pooling("pool")
    assert task.mend is not None
    return replace(task, mend=replace(task.mend, again=again, hops=hops))


def energies(task: Task, z: torch.Tensor) -> torch.Tensor:
    return task.objective(z, Draws(task.seeds, 0)) + task.weighed(z)


def test_mending_lowers_every_sample_round_by_round() -> None:
    task = mending()
    looks: list[torch.Tensor] = []
    dones: list[int] = []

    def watch(glance: Glance) -> None:
        if glance.done >= task.steps + task.finish:
            looks.append(energies(task, glance.render()))
            dones.append(glance.done)

    mended = run(task, watch=watch)
    assert dones == list(range(task.steps + task.finish, task.steps + task.rounds + 1))
    assert all(bool((b <= a * (1 + 1e-5)).all()) for a, b in zip(looks, looks[1:]))
    assert float((1 - looks[-1] / looks[0]).detach().min()) > 10 * ENOUGH
    torch.testing.assert_close(energies(task, mended.images), looks[-1])


@pytest.mark.parametrize("layer", ["pool", "mean"])
def test_a_run_killed_while_it_mends_or_goes_by_stages_goes_on_to_the_same_bytes(layer: str, tmp_path: Path) -> None:
    task = mending() if layer == "pool" else pooling("mean", 40)
    task = replace(task, stages=task.stages[:13])
    whole = run(task)
    # In the midst of a stage nothing is kept of it; after a round of mending all is.
    after = task.steps + (task.finish + 3 if layer == "pool" else sum(stage.rounds for stage in task.stages[:10]))

    def stop(glance: Glance) -> None:
        if glance.done == after:
            raise KeyboardInterrupt

    state = tmp_path / "state.npz"
    with pytest.raises(KeyboardInterrupt):
        run(task, state, "x", watch=stop)
    seen: list[int] = []
    resumed = run(task, state, "x", watch=lambda glance: seen.append(glance.done))
    assert seen[-1] == task.steps + task.rounds
    assert resumed.resumed_at == (task.steps if layer == "pool" else 9)
    assert seen[0] == (after + 1 if layer == "pool" else after)
    assert resumed.images.numpy().tobytes() == whole.images.numpy().tobytes()
    assert resumed.total.tobytes() == whole.total.tobytes()


def test_a_sample_that_gains_nothing_is_left_alone_and_ends_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gain that no round can have: after so many idle ones nobody is mended any more."""
    monkeypatch.setattr("dissect.inversion.mend.ENOUGH", 2.0)
    monkeypatch.setattr("dissect.inversion.engine.IDLE", 2)
    task = mending(1, 9)
    seen: list[int] = []
    run(task, watch=lambda glance: seen.append(glance.done))
    assert seen[-3:] == [task.steps + task.finish + 1, task.steps + task.finish + 2, task.steps + task.rounds]


def test_layers_are_mended_where_their_places_see_few_pixels_and_go_by_stages_where_there_are_none() -> None:
    network = small((16, 16))
    photos = grey_photos(1, network)
    found = set()
    for layer in network.layers:
        recipe = Recipe("spectrum", typical="measured")
        codes, scale = network.codes(photos, layer), preimages.typical(photos, recipe)
        task = preimages.plan(network, layer, recipe, codes, draws.seeds(0, 1), scale)
        places = codes[0, 0].numel() > 1
        assert (task.mend is not None) == (places and network.stride(layer) <= 5)
        assert bool(task.phases) == places
        assert bool(task.stages) != places
        assert task.starts == preimages.starts(network, layer, recipe)
        found.add(places)
        if not places:
            assert [stage.keep for stage in task.stages[:12]] == [8, 8, 8, 8, 8, 4, 4, 2, 2, 1, 1, 1]
            shares = [10 ** (-3 * max(0, 11 - i) / 11) for i in range(len(task.stages))]
            assert [stage.share for stage in task.stages] == pytest.approx(shares)
            softness = [stage.softness for stage in task.stages]
            assert softness == sorted(softness, reverse=True)
    assert found == {True, False}


def test_the_starts_with_the_least_energy_go_on_sample_by_sample() -> None:
    task = replace(pooling("mean"), starts=5)
    stage = replace(task.stages[3], keep=2)
    starts = task.image.start(several(task))
    smooth = eased(task, stage, starts)
    ends, energies = settle(smooth, starts, stage.rounds, lambda done, x: None)
    seen: list[tuple[int, ...]] = []
    left = through(task, stage, starts, lambda done, x: seen.append(tuple(x[0].shape)))
    first, second = (sorted(range(i, i + 5), key=energies.tolist().__getitem__)[:2] for i in (0, 5))
    assert torch.equal(left[0], ends[0][[*first, *second]])
    assert len(seen) == stage.rounds
    assert seen[0] == (2, *starts[0].shape[1:])
    # Every start is judged by the code of its own sample, at the stage's share of the weight, over its own widths.
    score = task.objective.score  # type: ignore[attr-defined]
    images = task.image.image(ends)
    for row in range(10):
        own = CodeError(score.target[row // 5][None], score.weight * stage.share)
        (begun,) = starts[0][row : row + 1].unsqueeze(0)
        alone = At(task.objective.network, "mean", own).rounded(task.image.image((begun,)), stage.softness)  # type: ignore[attr-defined]
        image = images[row : row + 1]
        energy = alone(image, Draws(task.seeds[:1], 0)) + task.weighed(image)
        torch.testing.assert_close(energy, energies[row : row + 1], rtol=1e-4, atol=1e-7)


def test_stages_end_below_what_l_bfgs_finds_on_the_energy_itself() -> None:
    task = pooling("mean", 10)
    plain = replace(task, stages=(Stage(100),))
    assert float((run(task).total[-1] / run(plain).total[-1]).mean()) < 0.97


def test_a_sample_without_an_energy_is_told_and_leaves_the_others_alone() -> None:
    task = pooling("mean", 40)
    task = replace(task, stages=task.stages[:2], finish=0)
    whole = run(task)
    score = task.objective.score  # type: ignore[attr-defined]
    target = torch.where(torch.tensor([True, False])[:, None, None, None], score.target, torch.nan)
    broken = replace(task, objective=replace(task.objective, score=replace(score, target=target)))  # type: ignore[type-var]
    found = run(broken)
    assert found.stopped[0] is None
    assert "not finite" in str(found.stopped[1])
    np.testing.assert_allclose(found.total[-1, 0], whole.total[-1, 0], rtol=1e-3)
    assert bool(found.images.isfinite().all())
    none = replace(score, target=torch.full_like(target, torch.nan))
    with pytest.raises(DissectError, match="stopped at step 1 of 2: the objective was not finite"):
        run(replace(task, objective=replace(task.objective, score=none)))  # type: ignore[type-var]


def test_both_errors_are_what_their_papers_say() -> None:
    network = small((16, 16))
    photos = grey_photos(4, network)
    found = invert.invert(network, photos, "three", Recipe(shorter=20, restarts=2))
    codes = network.codes(photos, "three").double().flatten(1)
    made = network.codes(found.images.flatten(0, 1), "three").double().flatten(1).unflatten(0, (4, 2))
    squares = (made - codes[:, None]).square().sum(2)
    np.testing.assert_allclose(found.feature_error, (squares.sqrt() / codes.norm(dim=1)[:, None]).numpy(), rtol=1e-4)
    pairs = torch.cdist(codes, codes).square()
    told = found.summary()
    assert math.isclose(told["cvpr15_error"], float(squares.mean() / pairs.mean()), rel_tol=1e-4)
    per_image = found.feature_error.mean(1)
    assert math.isclose(told["feature_error_se196"], 1.96 * per_image.std(ddof=1) / 2, rel_tol=1e-6)
    alone = invert.invert(network, photos[:1], "three", Recipe(shorter=20)).summary()
    assert alone["cvpr15_error"] is None
    assert alone["restart_spread"] is None


def test_pairwise_distance_counts_the_diagonal() -> None:
    codes = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert invert.pairwise_distance(codes) == pytest.approx(25 * 2 / 4)


def test_measured_b_and_v_make_both_priors_one() -> None:
    photos = grey_photos(5, small((24, 24))).double()
    b, v = preimages.typical(photos, Recipe(typical="measured"))
    assert float(AlphaNorm(6.0, b)(photos).mean()) == pytest.approx(1)
    assert float(TotalVariation(2.0, v)(photos).mean()) == pytest.approx(1)
    assert preimages.typical(photos, Recipe()) == (80.0, 80 / 6.5)
    with pytest.raises(SpecError, match="even colour"):
        preimages.typical(torch.zeros(1, 3, 4, 4), Recipe(typical="measured"))


def test_starts_are_the_published_ones() -> None:
    network = small((20, 20))
    photos = grey_photos(1, network)
    code = network.codes(photos, "two").repeat_interleave(3, 0)
    seeds = draws.seeds(0, 3)
    scale = (80.0, 80 / 6.5)
    (first,) = preimages.plan(network, "two", Recipe("cvpr15"), code, seeds, scale).image.start(seeds)
    sigma = 27098.1 * math.sqrt(20 * 20 / 227**2)
    torch.testing.assert_close(first.flatten(1).norm(dim=1), torch.full((3,), sigma))
    (uniform,) = preimages.plan(network, "two", Recipe(), code, seeds, scale).image.start(seeds)
    torch.testing.assert_close(
        torch.quantile(uniform.abs().flatten(1), 0.95, dim=1), torch.full((3,), 80 / math.sqrt(3))
    )


def test_the_canvas_is_larger_by_the_jitter_and_the_picture_is_not() -> None:
    network = small((16, 16))
    photos = grey_photos(1, network)
    recipe = Recipe(shorter=50)
    task = preimages.plan(network, "out", recipe, network.codes(photos, "out"), draws.seeds(0, 1), (80.0, 12.0))
    assert task.image.start(draws.seeds(0, 1))[0].shape == (1, 3, 19, 19)  # jitter = 16 / 4
    assert invert.invert(network, photos, "out", recipe).images.shape == (1, 1, 3, 16, 16)


def test_a_caricature_starts_at_the_photo_and_says_more_of_the_same() -> None:
    network = small((16, 16))
    photos = grey_photos(2, network)
    found = invert.invert(network, photos, "three", Recipe(caricature=True, typical="measured"))
    before, after = (network.codes(z, "three").flatten(1) for z in (photos, found.images[:, 0]))
    assert bool(((before * after).sum(1) > 1.2 * before.square().sum(1)).all())
    with pytest.raises(SpecError, match="ijcv16"):
        Recipe("cvpr15", caricature=True)


def test_parts_of_a_code() -> None:
    centre = preimages.part_mask((4, 9, 9), "centre")
    assert centre is not None
    assert centre[:, 2:7, 2:7].min() == 1
    assert int(centre.sum()) == 4 * 25
    first, second = (preimages.part_mask((5, 3, 3), p) for p in ("first-half", "second-half"))
    assert first is not None
    assert second is not None
    assert torch.equal(first + second, torch.ones(5, 3, 3))
    assert int(first.sum()) == 2 * 9
    assert preimages.part_mask((5,), "all") is None
    with pytest.raises(SpecError, match="needs a layer with maps"):
        preimages.part_mask((5,), "centre")


def test_inverting_a_part_leaves_the_rest_free() -> None:
    network = small((16, 16))
    photos = grey_photos(1, network)
    found = invert.invert(network, photos, "two", Recipe(part="first-half", typical="measured"))
    code, made = network.codes(photos, "two"), network.codes(found.images[:, 0], "two")
    error = [(made - code)[:, part].norm() / code[:, part].norm() for part in (slice(0, 6), slice(6, 12))]
    assert error[0] < 0.5 * error[1]


def test_a_code_of_zeros_cannot_be_inverted() -> None:
    network = small((16, 16))
    nn.init.constant_(network.module.one.weight, 0)
    nn.init.constant_(network.module.one.bias, 0)
    with pytest.raises(SpecError, match="zero everywhere"):
        invert.invert(network, grey_photos(1, network), "one", Recipe(shorter=50))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"setting": "cvpr14"}, "expected one of ijcv16, cvpr15, spectrum"),
        ({"part": "left"}, "part 'left'"),
        ({"restarts": 0}, "restarts >= 1"),
        ({"typical": "mine"}, "published or measured"),
        ({"settle": 3}, "below the published 50"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Recipe(**wrong)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(SpecError, match=r"images are \[8, 8\]"):
        invert.invert(small((16, 16)), torch.zeros(1, 3, 8, 8), "one", Recipe())


def test_batches_of_any_size_give_the_same_pictures(tmp_path: Path) -> None:
    network = small((16, 16))
    photos = grey_photos(3, network)
    recipe = Recipe(shorter=30, restarts=2, typical="measured")
    whole = invert.invert(network, photos, "two", recipe)
    cut = invert.invert(network, photos, "two", recipe, tmp_path / "state.npz", batch=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state-0.npz", "state-4.npz"]
    torch.testing.assert_close(cut.images, whole.images, rtol=0, atol=0.05)
    again = invert.invert(network, photos, "two", recipe, tmp_path / "state.npz", batch=4)
    assert torch.equal(again.images, cut.images)


def test_rank_correlation() -> None:
    assert depth.rank_correlation([1, 2, 3, 9]) == pytest.approx(1)
    assert depth.rank_correlation([4, 3, 2, 1]) == pytest.approx(-1)
    assert depth.rank_correlation([1, 3, 2]) == pytest.approx(0.5)
    assert depth.rank_correlation([1, 1, 2]) == pytest.approx(math.sqrt(3) / 2)
    assert math.isnan(depth.rank_correlation([2, 2, 2]))


def test_layers_of_a_depth_sheet() -> None:
    module = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Dropout(), nn.Conv2d(4, 4, 3), nn.Flatten())
    network = Network(module, RANGE, (8, 8))
    assert depth.blocks(network) == ["0.0", "0.1", "2"]
    assert depth.leaves(network) == ["0.0", "0.1", "2"]
