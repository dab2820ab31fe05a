"""Where architectures come from: torchvision, timm, the demo, or code that the user vouches for by its hash."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dissect.errors import SpecError, UnsafeError
from dissect.models import trusted
from dissect.models.preprocessing import IMAGENET, INSIDE, Preprocessing
from dissect.suggest import suggestion

Names = Mapping[str, Tensor]
"""State dict that a network is built for; empty where there are no weights."""


@dataclass(frozen=True)
class Architecture:
    """`build(classes, weights)` makes the network: `classes` None means its own default, and the names in `weights`
    decide about branches that a network may lack. `source` names it in full. `published(sha256)` is what the authors'
    own weights of that hash were trained with, if the hash is known. `classes` is the network's own number of classes,
    where heads for boxes need it."""

    source: str
    build: Callable[[int | None, Names], nn.Module]
    preprocessing: Preprocessing = IMAGENET
    published: Callable[[str], Preprocessing | None] = lambda sha256: None
    classes: int | None = None
    shipped_sha256: str | None = None  # of weights that come with the package


def find(source: str, trust: str | None = None, seed: int = 0) -> Architecture:
    """The architecture that MODEL names. Raises SpecError (unknown), UnsafeError (code without trust)."""
    kind, _, name = source.partition(":")
    if kind == "demo":
        return _demo(source, seed)
    if kind == "torchvision" and name:
        return _torchvision(name)
    if kind == "timm" and name:
        return _timm(name)
    if source.endswith(".py") or ".py:" in source or (name and kind not in ("torchvision", "timm")):
        found = trusted.load(source, trust)
        return Architecture(found.source, lambda classes, weights: found.build(classes))
    _not_a_file(source)
    return _torchvision(source)


def _not_a_file(source: str) -> None:
    """A checkpoint in the place of MODEL says nothing about the network, unless it is a program."""
    path = Path(source)
    if path.suffix.lower() == ".safetensors":
        raise SpecError(f"model {source!r} is a weights file: name the network and add --weights {source}")
    if path.is_file():
        raise UnsafeError(
            f"model {source!r} is a file that only its own code could turn into a network: refused; name the network "
            f"(torchvision:NAME, timm:NAME or FILE.py:factory) and give its state dict with --weights {source}"
        )


def _torchvision(name: str) -> Architecture:
    from torchvision import models

    images = {
        known: module
        for module in (models, models.segmentation, models.detection, models.quantization)
        for known in models.list_models(module=module)
    }
    if name not in images:
        clips = models.list_models(module=models.video) + models.list_models(module=models.optical_flow)
        if name in clips:
            raise SpecError(f"torchvision's {name!r} takes films or pairs of images, not single images")
        raise SpecError(f"torchvision has no model {name!r}{suggestion(name, sorted(images))}")
    published = partial(_published, name)
    boxes = images[name] is models.detection
    build = partial(_build_torchvision, name)
    return Architecture(f"torchvision:{name}", build, INSIDE if boxes else IMAGENET, published, 91 if boxes else None)


def _build_torchvision(name: str, classes: int | None, weights: Names) -> nn.Module:
    """Construction without any download; branches for training only where the weights have them."""
    from torchvision import models

    options: dict[str, Any] = {"weights": None}
    if name in models.list_models(module=models.segmentation) + models.list_models(module=models.detection):
        options["weights_backbone"] = None
    if name in models.list_models(module=models.segmentation) and not name.startswith("lraspp"):
        options["aux_loss"] = any(key.startswith("aux_classifier.") for key in weights)
    if name in models.list_models(module=models.quantization):
        options["quantize"] = False
    if name.endswith(("googlenet", "inception_v3")):
        auxiliary = ("aux1.", "aux2.", "AuxLogits.")
        options |= {
            "init_weights": not weights,
            "aux_logits": any(auxiliary[0] in k or k.startswith(auxiliary) for k in weights),
        }
    if classes is not None:
        options["num_classes"] = classes
    return models.get_model(name, **options)


def _published(name: str, sha256: str) -> Preprocessing | None:
    """Mean and standard deviation of torchvision's own weights, known by the hash in their file name."""
    from torchvision import models

    try:
        entries = list(models.get_model_weights(name))
    except ValueError:
        return None
    for entry in entries:
        known = entry.url.rsplit("-", 1)[-1].removesuffix(".pth")
        if len(known) >= 8 and sha256.startswith(known):
            transforms = entry.transforms()
            if hasattr(transforms, "mean") and hasattr(transforms, "std"):
                mean, std = (tuple(float(v) for v in values) for values in (transforms.mean, transforms.std))
                if name.endswith(("googlenet", "inception_v3")):  # their `transform_input` goes on to -1..1
                    mean = std = (0.5, 0.5, 0.5)
                return Preprocessing(mean, std, f"torchvision's for {entry}")  # type: ignore[arg-type]
    return None


def _timm(name: str) -> Architecture:
    try:
        import timm
    except ImportError:
        raise SpecError(
            f"model 'timm:{name}' needs timm, which is not installed: pip install 'dissect[timm]'"
        ) from None
    if not timm.is_model(name.partition(".")[0]):
        raise SpecError(f"timm has no model {name!r}{suggestion(name, timm.list_models())}")

    def build(classes: int | None, weights: Names) -> nn.Module:
        options = {} if classes is None else {"num_classes": classes}
        try:
            return timm.create_model(name, pretrained=False, **options)
        except RuntimeError as error:
            raise SpecError(f"timm cannot make {name!r}: {error}") from error

    given = timm.get_pretrained_cfg(name)
    if given is None:
        return Architecture(f"timm:{name}", build)
    mean, std = (tuple(float(v) for v in values) for values in (given.mean, given.std))
    return Architecture(f"timm:{name}", build, Preprocessing(mean, std, "timm's for this model"))  # type: ignore[arg-type]


def _demo(source: str, seed: int) -> Architecture:
    from dissect.models import demo
    from dissect.models.weights import file_sha256

    preprocessing = Preprocessing(demo.MEAN, demo.STD, "the demo network's own")
    makers: dict[str, Callable[[], nn.Module]] = {
        "demo": demo.trained,
        "demo:untrained": partial(demo.untrained, seed),
    }
    if source not in makers:
        raise SpecError(f"model {source!r} is unknown: expected demo or demo:untrained")
    make = makers[source]
    shipped = file_sha256(demo.ASSET) if source == "demo" else None
    return Architecture(source, lambda classes, weights: make(), preprocessing, shipped_sha256=shipped)


def last_layer(tensors: Names) -> str | None:
    """Name of the last weight matrix or 1 x 1 convolution of a network's own state dict: that of its classes."""
    last = None
    for name, value in tensors.items():
        if name.endswith("weight") and (value.dim() == 2 or (value.dim() == 4 and value.shape[2:] == (1, 1))):
            last = name
    return last
