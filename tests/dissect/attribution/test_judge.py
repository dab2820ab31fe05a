"""Judging: degenerate maps first, then formulas by hand, the planted set, concept sets, carriers and pictures."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

import broden
from dissect.attribution import pictures
from dissect.attribution.carriers import UnitLabel, carriers, concept_sums, contributions, detectors
from dissect.attribution.gradients import METHODS, attribute, scores
from dissect.attribution.judge.concepts import concept_items
from dissect.attribution.judge.curves import deletion, insertion, order
from dissect.attribution.judge.masks import energy, pointing, widened
from dissect.attribution.judge.planted import (
    SHAPES,
    SIDE,
    centre_expectation,
    planted_image,
    planted_items,
    planted_network,
)
from dissect.attribution.judge.randomisation import cascading_randomisation, class_contrast
from dissect.attribution.judge.scores import MASKED, MEANING, SCORES, Settings
from dissect.attribution.judge.sensitivity_n import sensitivity_n
from dissect.attribution.judge.table import BASELINES, Item, baseline_map, contrast_targets, judge
from dissect.attribution.network import Network
from dissect.attribution.occlusion.occlude import occlude
from dissect.attribution.ranking import rank_correlation, ranks
from dissect.attribution.targets import Target, class_target, unit_target
from dissect.errors import SpecError
from tests.dissect.attribution import nets
from tests.dissect.tiny import TinySet


def square(side: int = 20, low: int = 5, high: int = 9) -> Tensor:
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[low:high, low:high] = True
    return mask


# Scores of maps against masks
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tolerance", [0, 1, 3.5])
def test_degenerate_maps_get_what_chance_gives(tolerance: float) -> None:
    mask = square()
    area = float(widened(mask, tolerance).double().mean())
    for flat in (torch.zeros(20, 20), torch.ones(20, 20), torch.full((20, 20), -2.0)):
        assert pointing(flat, mask, tolerance) == pytest.approx(area)
    assert energy(torch.ones(20, 20), mask) == pytest.approx(16 / 400)
    assert energy(torch.zeros(20, 20), mask) == pytest.approx(16 / 400)
    assert energy(torch.full((20, 20), -1.0), mask) == pytest.approx(16 / 400)
    assert pointing(mask.double(), mask, tolerance) == energy(mask.double(), mask) == 1
    assert energy((~mask).double(), mask) == 0


def test_tolerance_is_strictly_less() -> None:
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[20, 20] = True
    for distance, hit in ((14, 1.0), (15, 0.0)):
        heat = torch.zeros(40, 40)
        heat[20, 20 + distance] = 1
        assert pointing(heat, mask) == hit
        assert pointing(heat.T, mask) == hit
    diagonal = torch.zeros(40, 40)
    diagonal[31, 31] = 1  # 15.6 away
    assert pointing(diagonal, mask) == 0
    tie = torch.zeros(40, 40)
    tie[20, 20] = tie[0, 0] = 3
    assert pointing(tie, mask) == 0.5


@given(st.integers(0, 10**6), st.floats(0, 6))
@hypothesis_settings(max_examples=30, deadline=None)
def test_widened_is_every_place_near_enough(seed: int, tolerance: float) -> None:
    mask = torch.rand(9, 11, generator=torch.Generator().manual_seed(seed)) < 0.1
    places = mask.nonzero().double()
    grid = torch.cartesian_prod(torch.arange(9.0), torch.arange(11.0)).double()
    near = torch.zeros(99, dtype=torch.bool)
    if len(places):
        distance = torch.cdist(grid, places, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
        near = distance < tolerance if tolerance > 0 else distance == 0
    assert torch.equal(widened(mask, tolerance), near.view(9, 11) | mask)


def test_masks_are_checked() -> None:
    with pytest.raises(SpecError, match="empty"):
        pointing(torch.ones(4, 4), torch.zeros(4, 4, dtype=torch.bool))
    with pytest.raises(SpecError, match="expected two"):
        energy(torch.ones(4, 4), torch.ones(4, 5, dtype=torch.bool))
    with pytest.raises(SpecError, match="NaN"):
        pointing(torch.full((4, 4), math.nan), torch.ones(4, 4, dtype=torch.bool))


def test_ranks_and_their_correlation() -> None:
    assert ranks(torch.tensor([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]
    a = torch.arange(10.0)
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, torch.ones(10)) == 0


# Curves and correlations
# ----------------------------------------------------------------------------------------------------


def sum_network() -> Network:
    """The score is the sum of all pixels, as a linear network sees it."""
    module = nets.seeded(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 2)))
    module[1].weight.fill_(1.0)
    module[1].bias.zero_()
    return nets.wrap(module)


def test_deletion_and_insertion_areas_by_hand() -> None:
    network = sum_network()
    x = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    x[0, 0, 0, 0], x[0, 0, 3, 3] = 3.0, 1.0
    good = x[0].sum(0)
    # Taken away one pixel at a time: 4, then 1, then 0 …: trapezoids (2.5 + 0.5 + 0 …) / 16.
    curve = deletion(network, x, good, class_target(0), step=1)
    assert curve.scores.tolist()[:4] == [4, 1, 0, 0]
    assert curve.area == pytest.approx(3 / 16)
    assert deletion(network, x, -good, class_target(0), step=1).area > curve.area
    assert deletion(network, x, good, class_target(0), step=16).scores.tolist() == [4, 0]
    # The blur keeps the sum, so insertion starts and ends at the same score here; its last image is the image.
    assert insertion(network, x, good, class_target(0), step=3).scores[-1] == pytest.approx(4)
    with pytest.raises(SpecError, match="one size"):
        deletion(network, x, torch.ones(3, 3), class_target(0))
    with pytest.raises(SpecError, match="-2 pixels a step"):
        deletion(network, x, good, class_target(0), step=-2)


def test_equal_places_come_in_a_random_order_of_the_seed() -> None:
    flat = torch.zeros(6, 6)
    assert order(flat, 1).tolist() != list(range(36))
    assert order(flat, 1).tolist() == order(flat, 1).tolist() != order(flat, 2).tolist()
    assert order(torch.arange(36.0).view(6, 6)).tolist() == list(range(35, -1, -1))


def test_sensitivity_n_is_one_for_a_linear_network() -> None:
    module, x = nets.seeded(nn.Sequential(nn.Flatten(), nn.Linear(3 * 36, 2))), nets.image(side=6)
    network = nets.wrap(module)
    heat = attribute(network, x, class_target(1), "gradient-x-input").map[0]
    assert sensitivity_n(network, x, heat, class_target(1), [1, 5, 20], draws=20) == pytest.approx([1, 1, 1])
    assert sensitivity_n(network, x, heat, class_target(1), [1, 3], draws=20, cell=2) == pytest.approx([1, 1])
    assert sensitivity_n(network, x, torch.ones(6, 6), class_target(1), [4], draws=20) == [0]
    with pytest.raises(SpecError, match="36 cells"):
        sensitivity_n(network, x, heat, class_target(1), [37])


# Randomisation and contrast
# ---------------------------------------------------------------------------------------------


def mapper(name: str):
    return lambda network, x, target: attribute(network, x, target, name).map


def test_randomisation_works_on_a_copy_from_the_top_down() -> None:
    network, x = nets.wrap(nets.seeded(nets.Spelt("module"))), nets.image()
    state = {key: value.clone() for key, value in network.module.state_dict().items()}
    stages = cascading_randomisation(network, x, class_target(1), mapper("gradient"))
    assert [stage.layer for stage in stages] == ["last", "two", "one"]
    assert all(torch.equal(value, state[key]) for key, value in network.module.state_dict().items())
    assert stages[-1].correlation < 0.9
    constant = cascading_randomisation(network, x, class_target(1), lambda n, x, t: x.sum(1), layers=2)
    assert [stage.correlation for stage in constant] == pytest.approx([1, 1])
    again = cascading_randomisation(network, x, class_target(1), mapper("gradient"))
    assert again == stages


def test_few_maps_of_a_cascade_are_stages_of_the_whole_one() -> None:
    network, x = nets.wrap(nets.seeded(nets.Spelt("module"))), nets.image()
    whole = cascading_randomisation(network, x, class_target(1), mapper("gradient"))
    assert cascading_randomisation(network, x, class_target(1), mapper("gradient"), maps=1) == whole[-1:]
    assert cascading_randomisation(network, x, class_target(1), mapper("gradient"), maps=2) == whole[1:]
    assert cascading_randomisation(network, x, class_target(1), mapper("gradient"), maps=9) == whole
    # Layers above the target's own have no say in it, so they are not among the stages.
    below = cascading_randomisation(network, x, unit_target("two", 0), mapper("gradient"))
    assert [stage.layer for stage in below] == ["two", "one"]


def test_class_contrast() -> None:
    network, x = nets.wrap(nets.seeded(nn.Sequential(nn.Flatten(), nn.Linear(3 * 36, 3)))), nets.image(side=6)
    pair = (class_target(0), class_target(1))
    assert class_contrast(network, x, (pair[0], pair[0]), mapper("gradient")) == pytest.approx(1)
    assert class_contrast(network, x, pair, lambda n, x, t: attribute(n, x, t).values.sum(1)) < 0.9
    first, rival = contrast_targets(network, x, class_target(0), [class_target(i) for i in range(3)])
    others = {i: float(scores(network, x, class_target(i))[0]) for i in (1, 2)}
    assert rival == class_target(max(others, key=others.__getitem__))
    assert first == class_target(0)


# The planted set
# ------------------------------------------------------------------------------------------------------------


def test_the_planted_network_decides_by_the_planted_shape() -> None:
    network = planted_network()
    for item in planted_items(36, seed=3):
        x = network.prepare(item.image[None])
        out = network.module(x)[0]
        assert int(out.argmax()) == item.target.units[0]
        # Without the shape nothing is left of the class: the decision hangs on this place alone.
        hidden = item.image.copy()
        hidden[item.mask] = 100
        assert float(network.module(network.prepare(hidden[None]))[0, item.target.units[0]]) < 0.2 * float(out.max())


def test_baselines_on_the_planted_set_are_what_they_must_be() -> None:
    side = 24
    places = side - SIDE + 1
    rng = np.random.default_rng(0)
    items = []
    for row in range(places):
        for column in range(places):
            image, mask = planted_image(SHAPES[0], row, column, side, rng, 0)
            items.append(Item(image, mask, class_target(0)))
    found = judge(planted_network(), items, {}, MASKED, Settings(tolerance=0))
    assert {row.method for row in found.rows} == set(BASELINES)
    assert found.row("ground truth").mean("pointing") == found.row("ground truth").mean("energy") == 1
    area = SIDE**2 / side**2
    assert found.row("constant").mean("pointing") == pytest.approx(area)
    assert found.row("constant").mean("energy") == pytest.approx(area)
    assert found.row("centre").mean("pointing") == pytest.approx(centre_expectation(side))
    # Random: a binomial share of all places, within four deviations.
    assert abs(found.row("random").mean("pointing") - area) < 4 * math.sqrt(area * (1 - area) / len(items))


def test_methods_beat_chance_on_the_planted_set_and_the_table_shows_all() -> None:
    methods = {
        "gradient": mapper("gradient"),
        "guided": mapper("guided"),
        "occlusion": lambda n, x, t: occlude(n, x, t, 9, 3).map,
    }
    found = judge(planted_network(), planted_items(6, seed=1), methods, settings=Settings(5, 0.02, step=200))
    for name in methods:
        assert found.row(name).mean("pointing") == 1
        assert found.row(name).mean("deletion") <= found.row("random").mean("deletion")
    text = found.text()
    assert all(name in text for name in (*methods, *BASELINES))
    assert found.json()["rows"][0]["each"]["pointing"] == [1.0] * 6
    with pytest.raises(SpecError, match="name of a baseline"):
        judge(planted_network(), planted_items(1), {"centre": mapper("gradient")})
    with pytest.raises(SpecError, match="nothing to judge"):
        judge(planted_network(), [], methods)


def test_every_score_is_explained_and_taken_of_every_row() -> None:
    assert set(MEANING) == set(SCORES)
    methods = {"gradient": mapper("gradient"), "guided": mapper("guided")}
    found = judge(
        planted_network(), planted_items(2, seed=5), methods, tuple(SCORES), Settings(step=400, draws=16, cell=4)
    )
    for row in found.rows:
        assert set(row.each) == set(SCORES)
        assert all(math.isfinite(row.mean(score)) for score in SCORES)
    # Maps that never look at the network do not change with it; a map of noise has nothing to do with the drops.
    for name in BASELINES:
        assert found.row(name).mean("randomisation") == pytest.approx(1)
        assert found.row(name).mean("class contrast") == pytest.approx(1)
    assert found.row("constant").mean("sensitivity-n") == 0
    assert found.row("ground truth").mean("sensitivity-n") > 0.5
    assert found.row("gradient").mean("class contrast") < 0.99
    with pytest.raises(SpecError, match="score 'beauty' is unknown"):
        judge(planted_network(), planted_items(1), methods, ("beauty",))


def test_baseline_maps() -> None:
    mask = square()
    centre = baseline_map("centre", mask, 0)
    assert divmod(int(centre.argmax()), 20) in {(9, 9), (9, 10), (10, 9), (10, 10)}
    assert not torch.equal(baseline_map("random", mask, 0), baseline_map("random", mask, 1))
    with pytest.raises(SpecError, match="baseline 'tea'"):
        baseline_map("tea", mask, 0)


def test_questions_from_a_concept_set(tmp_path: Path) -> None:
    tiny = TinySet(tmp_path, images=12)
    data = broden.open(tmp_path)
    target = unit_target("0", 0)
    items = list(concept_items(data, {"wheel": target}, area=(0.0, 1.0)))
    expected = [i for i in range(12) if tiny.holds(i)[5].any()]
    assert [item.name.split()[0] for item in items] == [data.rows[i].image for i in expected]
    for item, position in zip(items, expected):
        assert np.array_equal(item.mask, tiny.holds(position)[5].repeat(2, 0).repeat(2, 1))
        assert item.image.shape == (16, 16, 3)
    assert len(list(concept_items(data, {"red-c": target, "cat": target}, limit=2, area=(0.0, 1.0)))) == 4
    with pytest.raises(SpecError, match="no concept 'unicorn'"):
        list(concept_items(data, {"unicorn": target}))


# Carriers
# -------------------------------------------------------------------------------------------------------------------


def test_contributions_of_units_by_hand_and_by_their_sum() -> None:
    module = nets.seeded(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    )
    network, x = nets.wrap(module), nets.image(side=6, count=2)
    maps = module[0](x).relu()
    expected = module[4].weight[1] * maps.mean((2, 3))
    for way in ("gradient", "path", "ablation"):
        found = contributions(network, x, class_target(1), "1", way)
        torch.testing.assert_close(found.values, expected)
        torch.testing.assert_close(found.maps.sum((2, 3)), found.values)
    # Before an in-place ReLU the layer's own output is meant; silencing a unit there is the same as behind it.
    torch.testing.assert_close(contributions(network, x, class_target(1), "0", "ablation").values, expected)
    deep = nets.wrap(nets.seeded(nets.Residual()))
    whole = contributions(deep, nets.image(side=12), class_target(0), "norm", "path", steps=400)
    assert whole.gap is not None
    assert float(whole.gap.abs()) < 0.02 * float(whole.values.abs().sum())
    # Within the target's own layer the unit carries itself.
    own = contributions(network, x, unit_target("1", 2, "sum"), "1", "gradient").values
    torch.testing.assert_close(own, maps.sum((2, 3)) * torch.tensor([0.0, 0, 1, 0], dtype=torch.float64))
    with pytest.raises(SpecError, match="way 'guess'"):
        contributions(network, x, class_target(1), "1", "guess")
    with pytest.raises(SpecError, match="does not depend"):
        contributions(network, x, unit_target("0", 0), "1")


def test_carriers_join_labels() -> None:
    module = nets.seeded(nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)))
    found = contributions(nets.wrap(module), nets.image(side=6), class_target(0), "0")
    dog, cat, none = (
        UnitLabel("dog", "object", 0.3, True),
        UnitLabel("cat", "object", 0.01, False),
        UnitLabel(None, None, 0.0, False),
    )
    labels = [dog, cat, dog, none]
    best = carriers(found, labels, top=2)
    values = found.values[0]
    assert [c.unit for c in best] == values.abs().argsort(descending=True)[:2].tolist()
    assert best[0].share == pytest.approx(float(values.abs().max() / values.abs().sum()))
    sums = {row["concept"]: row for row in concept_sums(found, labels)}
    assert sums["dog"]["contribution"] == pytest.approx(float(values[0] + values[2]))
    assert sums[None]["units"] == 2
    assert detectors(labels, "dog") == [0, 2]
    with pytest.raises(SpecError, match="no unit detects 'cat'"):  # below the cut
        detectors(labels, "cat")
    with pytest.raises(SpecError, match="did you mean dog"):
        detectors(labels, "dgo")
    with pytest.raises(SpecError, match="another network"):
        carriers(found, labels[:2])


# Pictures
# -------------------------------------------------------------------------------------------------------------------


def test_overlay_is_grey_where_the_map_is_zero(tmp_path: Path) -> None:
    image = np.full((8, 8, 3), 80, np.uint8)
    heat = np.zeros((8, 8))
    assert np.array_equal(pictures.overlay(image, heat), image)
    heat[2, 3] = 1
    drawn = pictures.overlay(image, heat)
    assert (drawn != image).any(2).sum() == 1
    heat[4, 4] = -1
    signed = pictures.overlay(image, heat)
    assert signed[2, 3, 0] > signed[2, 3, 2]
    assert signed[4, 4, 2] > signed[4, 4, 0]
    page = pictures.sheet([("one\ntwo", drawn)] * 5, columns=2)
    assert page.size[0] > 16
    pictures.write_arrays(tmp_path / "a.npz", {"map": heat}, {"score": 1})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert np.array_equal(file["map"], heat)
        assert str(file["record"]) == '{"score": 1}'
    assert pictures.read_image(_saved(tmp_path, image), (4, 6)).shape == (4, 6, 3)


def _saved(folder: Path, image: np.ndarray) -> Path:
    from PIL import Image

    Image.fromarray(image).save(folder / "p.png")
    return folder / "p.png"


def test_reference_target_is_a_plain_value() -> None:
    assert Target("a") == Target("a")
    assert METHODS["guided"].json()["relu"] == "guided"
