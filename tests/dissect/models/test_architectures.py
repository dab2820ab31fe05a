"""Architectures by name, family by family, on torch's meta device: shapes without numbers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dissect import models
from dissect.errors import SpecError
from dissect.models import loading, sources
from dissect.models.preprocessing import IMAGENET, INSIDE

FAMILIES = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5",
    "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_32", "wide_resnet50_2", "deeplabv3_mobilenet_v3_large",
    "fcn_resnet50", "lraspp_mobilenet_v3_large", "quantized_mobilenet_v2", "quantized_googlenet",
]  # fmt: skip
BOXES = [
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "ssdlite320_mobilenet_v3_large",
]


def fitted(name: str, state: dict[str, Tensor]) -> tuple[nn.Module, list[str]]:
    notes: list[str] = []
    return loading._with_weights(sources.find(name), state, notes), notes


@pytest.mark.filterwarnings("ignore:for .*. copying from a non-meta parameter", "ignore:.*no-op")
@pytest.mark.parametrize("name", FAMILIES + BOXES)
def test_weights_of_seven_classes_are_recognised(name: str) -> None:
    with torch.device("meta"):
        state = sources.find(name).build(7, {}).state_dict()
        module, notes = fitted(name, {f"module.{key}": value for key, value in state.items()})
        assert notes[0] == "prefix 'module.' taken off the names of the weights"
        assert notes[-1] == "7 classes, read from the last layer of the weights"
        assert {k: v.shape for k, v in module.state_dict().items()} == {k: v.shape for k, v in state.items()}
    if name in FAMILIES:
        side = 299 if "inception" in name else 224
        listed = models.layers(module.eval(), (side, side))
        assert len(listed) > 10
        assert not any(child._forward_hooks for child in module.modules())


@pytest.mark.filterwarnings("ignore:for .*. copying from a non-meta parameter", "ignore:.*no-op")
@pytest.mark.parametrize(
    ("name", "branch", "option"),
    [("googlenet", "aux1.", {"aux_logits": True}), ("inception_v3", "AuxLogits.", {"aux_logits": True}),
     ("fcn_resnet50", "aux_classifier.", {"aux_loss": True, "weights_backbone": None})],
)  # fmt: skip
def test_branches_for_training_are_there_when_the_weights_have_them(
    name: str, branch: str, option: dict[str, object]
) -> None:
    from torchvision.models import get_model

    with torch.device("meta"):
        state = get_model(name, weights=None, **option).state_dict()
        assert any(key.startswith(branch) for key in state)
        module, _ = fitted(name, state)
        assert any(key.startswith(branch) for key in module.state_dict())
        module, _ = fitted(name, {key: value for key, value in state.items() if not key.startswith(("aux", "Aux"))})
        assert not any(key.startswith(branch) for key in module.state_dict())


def test_names_of_older_files_are_understood(tmp_path: Path) -> None:
    """ViT and DenseNet as torchvision's own files have them."""
    vit = models.load("vit_b_32", seed=1).module.state_dict()
    old = {}
    for key, value in vit.items():
        parts = key.split(".mlp.")
        number = {"0": "linear_1", "3": "linear_2"}[parts[1].split(".")[0]] if len(parts) == 2 else ""
        old[f"{parts[0]}.mlp.{number}.{parts[1].split('.')[1]}" if number else key] = value
    assert old.keys() != vit.keys()
    save_file(old, tmp_path / "vit.safetensors")
    loaded = models.load("vit_b_32", tmp_path / "vit.safetensors").module.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in vit.items())

    dense = models.load("densenet121", seed=1).module.state_dict()
    old = {}
    for key, value in dense.items():
        for kind in ("norm", "conv"):
            for number in "12":
                key = key.replace(f".{kind}{number}.", f".{kind}.{number}.") if "denselayer" in key else key
        old[key] = value
    save_file(old, tmp_path / "dense.safetensors")
    loaded = models.load("densenet121", tmp_path / "dense.safetensors").module.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in dense.items())


def test_preprocessing_comes_from_what_is_known() -> None:
    assert sources.find("resnet18").preprocessing == IMAGENET
    assert sources.find("fasterrcnn_resnet50_fpn").preprocessing == INSIDE
    known = sources.find("resnet18").published
    assert known("f37072fd" + "0" * 56).mean == IMAGENET.mean
    assert "ResNet18_Weights.IMAGENET1K_V1" in known("f37072fd" + "0" * 56).origin
    assert known("f37072fe" + "0" * 56) is None
    # These two were trained on -1..1; torchvision converts inside the network, and only with its own download.
    assert sources.find("googlenet").published("1378be20" + "0" * 56).mean == (0.5, 0.5, 0.5)
    assert sources.find("inception_v3").published("0cc3c7bd" + "0" * 56).std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", "torchvision has no model 'resnet81': did you mean resnet"),
        ("torchvision:ResNet18", "did you mean resnet18"),
        ("torchvision:", "torchvision has no model 'torchvision:'"),
        ("raft_large", "takes films or pairs of images, not single images"),
        ("r3d_18", "takes films or pairs of images, not single images"),
        ("demo:trained", "expected demo or demo:untrained"),
        ("", "torchvision has no model ''"),
    ],
)
def test_unknown_models_get_near_names(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        models.load(name)


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(SpecError, match=r"needs timm, which is not installed: pip install 'dissect\[timm\]'"):
        models.load("timm:resnet18")


def test_timm_by_name() -> None:
    pytest.importorskip("timm", reason="timm is an extra")
    model = models.load("timm:mobilenetv3_small_050")
    assert model.preprocessing.origin == "timm's for this model"
    assert len(models.layers(model)) > 50
    with pytest.raises(SpecError, match="timm has no model 'resnet81': did you mean"):
        models.load("timm:resnet81")


def test_loading_and_listing_leave_everything_as_it_was() -> None:
    state = torch.random.get_rng_state()
    models.load("squeezenet1_1", seed=9)
    assert torch.equal(state, torch.random.get_rng_state())
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(inplace=True)).train()
    net[1].eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    assert [info.name for info in models.layers(net, (8, 8))] == ["0", "1", "2", "3"]
    assert [child.training for child in net] == [True, False, True, True]
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())
    net.append(nn.Linear(3, 3))
    with pytest.raises(SpecError, match="cannot take an image of 8 x 8"):
        models.layers(net, (8, 8))
    assert net.training
    assert not any(child._forward_hooks for child in net.modules())


def test_sizes_that_assertions_refuse_are_explained() -> None:
    with torch.device("meta"):
        module = sources.find("vit_b_32").build(None, {}).eval()
    with pytest.raises(SpecError, match="cannot take an image of 100 x 100: Wrong image height!"):
        models.layers(module, (100, 100))
