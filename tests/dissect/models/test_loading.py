"""Networks by name and file: what is found, what is said, what is refused."""

import errno
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from dissect import models
from dissect.errors import DissectError, SpaceError, SpecError, UnsafeError
from dissect.models import safetensors_file, weights
from dissect.models.weights import read_weights, strip


def test_architectures_by_name_are_random_from_the_seed() -> None:
    first, again, other = (
        models.load(name, seed=seed)
        for name, seed in (("squeezenet1_1", 1), ("torchvision:squeezenet1_1", 1), ("squeezenet1_1", 2))
    )
    weight = "features.0.weight"
    assert first.source == again.source == "torchvision:squeezenet1_1"
    assert torch.equal(first.module.state_dict()[weight], again.module.state_dict()[weight])
    assert not torch.equal(first.module.state_dict()[weight], other.module.state_dict()[weight])
    assert first.notes == ("no --weights given: the network is random (seed 1)",)
    assert not first.module.training
    assert not any(p.requires_grad for p in first.module.parameters())


@pytest.mark.parametrize("name", ["resnet18", "inception_v3", "mobilenet_v3_small"])
def test_layers_are_listed_in_order_with_shapes_and_nothing_stays(name: str) -> None:
    model = models.load(name)
    listed = models.layers(model, (224, 224) if name != "inception_v3" else (299, 299))
    assert len({info.name for info in listed}) == len(listed) > 10
    assert all(info.calls >= 1 for info in listed)
    assert not any(module._forward_hooks for module in model.module.modules())
    if name == "resnet18":
        found = {info.name: info for info in listed}
        assert found["layer4"].shape == (512, 7, 7)
        assert found["layer1.0.relu"].calls == 2
        assert [info.name for info in listed].index("layer1") < [info.name for info in listed].index("layer2")


def test_a_size_that_the_network_cannot_take_is_explained() -> None:
    with pytest.raises(SpecError, match=r"cannot take an image of 8 x 8: .*try another --input-size"):
        models.layers(models.load("alexnet"), (8, 8))


def test_wrong_layer_names_get_near_ones() -> None:
    with pytest.raises(SpecError, match=r"no layer 'layer44': did you mean layer4.*--layer '\?' lists all"):
        models.resolve_layer(models.load("resnet18").module, "layer44")


def test_wrappers_prefixes_and_class_counts_are_handled_and_said(tmp_path: Path) -> None:
    state = models.load("torchvision:resnet18", seed=3).module.state_dict()
    state["fc.weight"], state["fc.bias"] = torch.zeros(7, 512), torch.zeros(7)
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "a.pth.tar")
    model = models.load("resnet18", tmp_path / "a.pth.tar", cache_dir=tmp_path / "cache")
    assert torch.equal(model.module.state_dict()["conv1.weight"], state["conv1.weight"])
    assert model.notes == (
        "weights taken from 'state_dict' inside the checkpoint",
        "prefix 'module.' taken off the names of the weights",
        "7 classes, read from the last layer of the weights",
    )
    again = models.load("resnet18", tmp_path / "a.pth.tar", cache_dir=tmp_path / "cache")
    assert again.notes == model.notes
    assert again.weights_sha256 == model.weights_sha256


def test_safetensors_and_state_dict_give_the_same_network(tmp_path: Path) -> None:
    state = models.load("squeezenet1_1", seed=4).module.state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    ours, theirs = (
        models.load("squeezenet1_1", tmp_path / name).module.state_dict() for name in ("a.safetensors", "a.pth")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_nan_weights_are_said(tmp_path: Path) -> None:
    state = models.load("squeezenet1_1").module.state_dict()
    state["features.0.bias"][0] = torch.nan
    save_file(state, tmp_path / "a.safetensors")
    assert (
        "1 weight tensors hold NaN or infinity, first features.0.bias"
        in models.load("squeezenet1_1", tmp_path / "a.safetensors").notes
    )


def test_programs_are_refused_before_they_are_opened(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "a.pt"))
    with pytest.raises(UnsafeError, match=r"are a TorchScript program, which is code: refused; save the state dict"):
        read_weights(tmp_path / "a.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(UnsafeError, match="cannot be loaded as weights only, and there is no other way"):
        read_weights(tmp_path / "module.pth")


def test_weights_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    state = models.load("squeezenet1_1").module.state_dict()
    state["features.0.wieght"] = state.pop("features.0.weight")
    state["features.3.squeeze.bias"] = torch.zeros(5)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(SpecError) as refused:
        models.load("squeezenet1_1", tmp_path / "a.safetensors")
    assert str(refused.value) == (
        "the weights do not fit torchvision:squeezenet1_1: 1 missing (features.0.weight); 1 unexpected "
        "(features.0.wieght); 1 of another shape (features.3.squeeze.bias: [5], expected [16]); perhaps "
        "features.0.wieght for features.0.weight"
    )


@pytest.mark.parametrize(
    ("prefixes", "said"),
    [
        (["module."], ["module."]),
        (["_orig_mod.", "module."], ["module.", "_orig_mod."]),
        (["model."], ["model."]),
        (["backbone.", "net."], []),
        (["module."] * 4, ["module."] * 4),
    ],
)
def test_prefixes_of_wrappers_are_taken_off(prefixes: list[str], said: list[str]) -> None:
    own = {"features.0.weight": torch.ones(1), "classifier.bias": torch.ones(1)}
    given = dict(own)
    for prefix in prefixes:
        given = {prefix + name: value for name, value in given.items()}
    notes: list[str] = []
    found = strip(given, own, notes)
    assert notes == [f"prefix {prefix!r} taken off the names of the weights" for prefix in said]
    assert found == (own if said else given)


def test_no_more_than_four_prefixes_are_taken_off() -> None:
    notes: list[str] = []
    assert list(strip({"module." * 6 + "w": torch.ones(1)}, {"w": torch.ones(1)}, notes)) == ["module.module.w"]
    assert len(notes) == 4


def test_prefixes_that_the_network_has_stay() -> None:
    own = {"module.weight": torch.ones(1)}
    assert strip(own, own, []) == own


def test_weights_too_large_for_the_machine_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"w": torch.ones(3)}, tmp_path / "a.safetensors")
    monkeypatch.setattr(weights.os, "sysconf", lambda name: 10)
    with pytest.raises(SpaceError, match="too many for a machine with 100 of memory"):
        read_weights(tmp_path / "a.safetensors")
    monkeypatch.setattr(weights, "MAX_BYTES", 20)
    with pytest.raises(SpecError, match="more than 20"):
        read_weights(tmp_path / "a.safetensors")


def test_a_full_disk_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "a.pth")
    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    assert weights.child.disk_full(RuntimeError(said))
    assert not weights.child.disk_full(RuntimeError("File too large"))
    done = subprocess.CompletedProcess([], weights.child.FULL, "", "")
    with monkeypatch.context() as patch:
        patch.setattr(weights.subprocess, "run", lambda *arguments, **options: done)
        with pytest.raises(SpaceError, match="no space left in"):
            read_weights(tmp_path / "a.pth")

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights.tempfile, "TemporaryDirectory", full)
    with pytest.raises(SpaceError, match=r"no space left in .* set TMPDIR to another folder"):
        read_weights(tmp_path / "a.pth")


def test_files_that_cannot_be_read_or_hold_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"weights .*none\.pth do not exist: expected a \.safetensors file"):
        read_weights(tmp_path / "none.pth")
    (tmp_path / "memory.safetensors").symlink_to("/proc/self/mem")  # a file whose first byte is an error
    with pytest.raises(SpecError, match=r"memory\.safetensors cannot be read: Input/output error"):
        read_weights(tmp_path / "memory.safetensors")
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(SpecError, match=r"empty\.safetensors hold no tensors"):
        read_weights(tmp_path / "empty.safetensors")
    with pytest.raises(SpecError, match=r"weights .*gone cannot be opened: No such file or directory"):
        safetensors_file.read(tmp_path / "gone")


def test_a_child_process_that_takes_too_long_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "a.pth")
    monkeypatch.setattr(weights.child, "SECONDS", -2 * weights.child.cpu_seconds(0))
    with pytest.raises(UnsafeError, match=r"a\.pth did not load within 0 s: refused"):
        read_weights(tmp_path / "a.pth", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_full_disk_only_costs_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, kept = tmp_path / "source", tmp_path / "cache" / "kept.safetensors"
    source.write_bytes(b"whole")

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"wh")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(weights.shutil, "copyfile", full)
        weights._keep(source, kept)
    assert not list(kept.parent.iterdir())
    weights._keep(source, kept)
    assert [path.read_bytes() for path in kept.parent.iterdir()] == [b"whole"]


def test_a_cache_that_is_no_folder_is_no_fault_of_the_weights(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "a.pth")
    (tmp_path / "cache").write_text("a file")
    assert read_weights(tmp_path / "a.pth", tmp_path / "cache").tensors["w"].tolist() == [1, 1, 1]
    assert (tmp_path / "cache").read_text() == "a file"


def test_a_network_that_refuses_its_weights_is_told_in_its_words() -> None:
    class Fussy(nn.Linear):
        def _load_from_state_dict(self, *arguments: Any) -> None:
            arguments[-1].append("only on Sundays")

    with pytest.raises(DissectError, match=r"^the weights do not load into net\.py:fussy: (.|\n)*only on Sundays"):
        weights.fit(Fussy(2, 2), nn.Linear(2, 2).state_dict(), "net.py:fussy", [])


def test_half_weights_are_converted_and_that_is_said(tmp_path: Path) -> None:
    state = {k: v.half() for k, v in models.load("squeezenet1_1").module.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    model = models.load("squeezenet1_1", tmp_path / "a.safetensors")
    assert model.notes == ("weights converted from float16 to float32",)
    assert model.module.state_dict()["features.0.weight"].dtype == torch.float32


@pytest.mark.slow
def test_wrappers_win_over_tensors_beside_them_and_damaged_caches_are_made_again(tmp_path: Path) -> None:
    state = {"w": torch.ones(3), "tied": torch.zeros(2, 3)}
    state["again"] = state["tied"].t()
    torch.save({"step": torch.tensor(3), "model": {"ema": {}, "state_dict": state}}, tmp_path / "a.ckpt")
    first = read_weights(tmp_path / "a.ckpt", tmp_path / "cache")
    assert first.notes == tuple(
        f"weights taken from {name!r} inside the checkpoint" for name in ("model", "state_dict")
    )
    assert {name: value.tolist() for name, value in first.tensors.items()} == {
        name: value.tolist() for name, value in state.items()
    }
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1])
    again = read_weights(tmp_path / "a.ckpt", tmp_path / "cache")
    assert again.notes == first.notes
    assert kept.read_bytes() == whole


@pytest.mark.parametrize(("name", "scale", "wanted"), [("mobilenet_v2", 0.5, 0.7), ("squeezenet1_1", None, 0.5)])
def test_real_weights_recognise_real_photos(shared_data: Path, name: str, scale: float | None, wanted: float) -> None:
    triple = (scale, scale, scale) if scale else None
    file = shared_data / "weights" / f"{name}_imagenet.pth"
    model = models.load(name, file, mean=triple, std=triple)
    state, loaded = torch.load(file, weights_only=True), model.module.state_dict()
    assert state.keys() <= loaded.keys()
    assert all(key in state or key.endswith("num_batches_tracked") for key in loaded)
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    assert not model.notes
    import csv

    with open(shared_data / "images" / "imagenet_1000.csv") as file:
        rows = list(csv.DictReader(file))[::25]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std))
    right = 0
    for row in rows:
        photo = Image.open(shared_data / "images" / "imagenet_1000" / Path(row["file"]).name).convert("RGB")
        left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
        pixels = torch.from_numpy(np.array(photo.crop((left, top, left + 224, top + 224)))).permute(2, 0, 1) / 255
        with torch.inference_mode():
            right += int(model.module(((pixels - mean) / std)[None]).argmax()) == int(row["class"])
    print(f"{name}: {right} of {len(rows)} photos recognised")
    assert right / len(rows) >= wanted
