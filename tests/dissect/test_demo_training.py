"""Training the demo network, at a very reduced size."""

import json
from pathlib import Path

import pytest
import torch

from dissect.models import demo, demo_training
from dissect.models.demo_training import UNKNOWN, Settings, accuracy, loss_of, pictures, train


def test_answers_are_the_facts_of_the_images() -> None:
    data = pictures(100, 48, seed=5)
    assert data.images.shape == (100, 3, 48, 48)
    assert data.images.float().std() > 20
    spans = demo.spans()
    assert list(spans) == ["object", "texture", "scene", "colour"]
    things, textures, scenes, colours = data.answers.T
    assert int((things > 0).sum()) == 69  # of a hundred images 55 show scenes and 14 a thing
    assert int((textures > 0).sum()) == 14
    assert int((scenes > 0).sum()) == 55
    assert int((colours != UNKNOWN).sum()) == 83
    assert torch.equal(colours != UNKNOWN, (things > 0) | (textures > 0))
    assert all(int(a.max()) < len(names) for a, names in zip(data.answers.T, demo.HEADS.values()))


def test_the_loss_is_the_sum_over_heads_and_leaves_out_what_has_no_answer() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, len(demo.CLASSES), dtype=torch.float64)
    answers = torch.tensor([[1, 0, 2, UNKNOWN], [0, 4, 0, 7], [3, 0, 5, UNKNOWN]])
    expected = 0.0
    for h, span in enumerate(demo.spans().values()):
        known = [i for i in range(3) if answers[i, h] != UNKNOWN]
        terms = [-logits[i, span].log_softmax(0)[answers[i, h]].item() for i in known]
        expected += sum(terms) / len(terms)
    assert loss_of(logits, answers).item() == pytest.approx(expected, rel=1e-12)
    assert torch.isfinite(loss_of(logits[:1], answers[:1]))  # no image has an answer of the last head


@pytest.mark.slow
def test_loss_falls_and_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    written = []
    for name in ("one", "two"):
        out = tmp_path / name / "net.safetensors"
        assert demo_training.main(["--out", str(out), "--images", "64", "--epochs", "3", "--seed", "4"]) == 0
        written.append(out)
    torch.set_num_threads(threads)
    assert written[0].read_bytes() == written[1].read_bytes()
    card = json.loads(written[0].with_suffix(".json").read_text())
    assert card["losses"][-1] < card["losses"][0] - 0.5
    assert card["data"].endswith("seed 5")
    assert not torch.are_deterministic_algorithms_enabled()


def test_another_seed_gives_another_network_and_the_random_state_is_left_alone() -> None:
    state = torch.random.get_rng_state()
    one, other = (train(Settings(images=32, epochs=1, seed=seed, size=48)) for seed in (0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(one.network.head.weight, other.network.head.weight)
    assert not one.network.training
    assert set(accuracy(one.network, pictures(50, 48, seed=9))) == set(demo.HEADS)
