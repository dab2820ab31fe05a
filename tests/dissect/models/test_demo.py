"""The network in the package: small, sound, what its card says, and with more detectors than its untrained copy."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import broden
from dissect import models, pipeline, scores
from dissect.errors import SpecError
from dissect.models import demo

IMAGES = 160


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_file_is_small_and_what_its_card_says() -> None:
    card = json.loads(demo.CARD.read_text())
    data = demo.ASSET.read_bytes()
    assert len(data) <= 1_000_000
    assert hashlib.sha256(data).hexdigest() == card["sha256"]
    assert card["parameters"] == sum(value.numel() for value in demo.build().parameters())
    assert card["layer"] == demo.LAYER
    assert card["classes"] == {head: list(names) for head, names in demo.HEADS.items()}
    assert (tuple(card["mean"]), tuple(card["std"])) == (demo.MEAN, demo.STD)


def test_heads_tile_the_logits() -> None:
    spans = list(demo.spans().values())
    assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])]
    assert spans[-1].stop == len(demo.CLASSES)
    assert demo.untrained()(torch.zeros(2, 3, demo.SIZE, demo.SIZE)).shape == (2, len(demo.CLASSES))


def test_layers_have_simple_names() -> None:
    found = {info.name: info.shape for info in models.layers(demo.untrained(), (demo.SIZE, demo.SIZE))}
    assert found["conv1"] == (24, 64, 64)
    assert found[demo.LAYER] == (128, 16, 16)


def test_untrained_copies_depend_on_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    one, same, other = (demo.untrained(seed).head.weight for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, demo.trained().head.weight)


def test_loading_is_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "ASSET", tmp_path / "gone.safetensors")
    with pytest.raises(SpecError, match=r"gone\.safetensors"):
        demo.trained()
    from safetensors.torch import save_file

    state = demo.untrained().state_dict()
    del state["conv3.0.weight"]
    save_file(state, tmp_path / "gone.safetensors")
    with pytest.raises(RuntimeError, match=r"conv3\.0\.weight"):
        demo.trained()


def test_models_load_knows_both() -> None:
    trained, untrained = models.load("demo"), models.load("demo:untrained", seed=3)
    for model in (trained, untrained):
        assert not model.module.training
        assert (model.preprocessing.mean, model.preprocessing.std) == (demo.MEAN, demo.STD)
    x = torch.rand(2, 3, demo.SIZE, demo.SIZE)
    assert torch.equal(trained.module(x), demo.trained()(x))
    assert torch.equal(untrained.module(x), demo.untrained(3)(x))


@pytest.fixture(scope="module")
def concepts(tmp_path_factory: pytest.TempPathFactory) -> broden.Dataset:
    """A set of a seed of its own: neither the training's nor the demo's."""
    return broden.synth(tmp_path_factory.mktemp("demo") / "set", images=IMAGES, size=demo.SIZE, seed=11, workers=1)


def detected(network: torch.nn.Module, data: broden.Dataset, folder: Path) -> dict[str, int]:
    """Detectors of the demo's layer by category."""
    method = pipeline.Method((demo.LAYER,), mean=demo.MEAN, std=demo.STD)
    result = pipeline.dissect(network, data, method, pipeline.Resources(folder))
    layer, primary = result.layers[demo.LAYER], np.array(data.labels.primary)
    labels = scores.label_units(scores.Counts(layer.intersection, layer.area, result.totals.area, primary))
    kinds = primary[labels.label[labels.detectors(0.04)]]
    return {category.name: int((kinds == category.index).sum()) for category in data.categories}


@pytest.mark.slow
def test_training_made_detectors(concepts: broden.Dataset, tmp_path: Path) -> None:
    trained = detected(demo.trained(), concepts, tmp_path / "trained")
    untrained = detected(demo.untrained(), concepts, tmp_path / "untrained")
    assert sum(count > 0 for count in trained.values()) >= 4, trained
    assert sum(trained.values()) >= 2 * sum(untrained.values()), (trained, untrained)
