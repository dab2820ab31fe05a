"""Networks by name and file: what is found, what is said, what is refused, and that folding changes no function."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from dissect import models
from dissect.errors import SpecError, UnsafeError
from dissect.models import safetensors_file
from dissect.models.folding import fold_batch_norms
from dissect.models.weights import read_weights


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


@pytest.mark.parametrize(
    "name", ["resnet18", "googlenet", "inception_v3", "densenet121", "vit_b_16", "mobilenet_v3_small"]
)
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


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "claims"),
        (b"\xff" * 8 + b"{}", "claims"),
        ((2).to_bytes(8, "little") + b"[]", "no JSON object"),
        ((2).to_bytes(8, "little") + b"{}xx", "end at byte 0, the file holds 2"),
    ],
)
def test_unsound_headers_are_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(raw)
    with pytest.raises(SpecError, match=message):
        safetensors_file.check(tmp_path / "a.safetensors")


def test_mutated_safetensors_never_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.int64)}, path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(1500):
        damaged = whole.copy()
        for _ in range(int(rng.integers(1, 4))):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        path.write_bytes(
            damaged[: int(rng.integers(1, len(damaged) + 1))].tobytes() if rng.random() < 0.3 else damaged.tobytes()
        )
        try:
            tensors = safetensors_file.read(path)
        except SpecError:
            refused += 1
        else:
            assert sum(t.numel() * t.element_size() for t in tensors.values()) == 56
    assert 500 < refused < 1500


class Branchy(nn.Module):
    """A norm after a convolution whose output is also used elsewhere, and one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.an = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.b, self.bn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.c, self.cn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.an(self.a(x)).relu()
        y = self.b(x)
        return self.cn(self.c(self.bn(y) + y)) + self.cn(x)


def test_folding_changes_no_function_and_leaves_what_is_read() -> None:
    torch.manual_seed(0)
    net = Branchy().eval()
    for norm in (net.an, net.bn, net.cn):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    image = torch.randn(2, 3, 5, 5)
    notes: list[str] = []
    folded = fold_batch_norms(net, (), notes)
    assert notes == ["1 batch norms folded into their convolutions"]
    assert [type(m).__name__ for m in (folded.an, folded.bn, folded.cn)] == ["Identity", "BatchNorm2d", "BatchNorm2d"]
    assert torch.allclose(net(image), folded(image), atol=1e-5)
    assert isinstance(net.an, nn.BatchNorm2d)
    assert fold_batch_norms(net, ("a",), []) is net


def test_real_networks_fold_to_the_same_outputs() -> None:
    model = models.load("resnet18")
    folded = models.load("resnet18", keep=("layer4",))
    assert "20 batch norms folded into their convolutions" in folded.notes
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model.module(image), folded.module(image), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "scale", "wanted"), [("mobilenet_v2", 0.5, 0.7), ("squeezenet1_1", None, 0.5)])
def test_real_weights_recognise_real_photos(shared_data: Path, name: str, scale: float | None, wanted: float) -> None:
    triple = (scale, scale, scale) if scale else None
    model = models.load(name, shared_data / "weights" / f"{name}_imagenet.pth", mean=triple, std=triple)
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
    assert right / len(rows) >= wanted
