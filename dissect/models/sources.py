"""Where architectures come from: torchvision, timm, the demo, or code that the user vouches for by its hash."""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dissect.errors import SpecError, UnsafeError
from dissect.models.preprocessing import IMAGENET, Preprocessing


@dataclass(frozen=True)
class Architecture:
    """How to build a network with a number of classes (None: its own default); `source` names it in full."""

    source: str
    build: Callable[[int | None], nn.Module]
    preprocessing: Preprocessing = IMAGENET


def find(source: str, trust: str | None = None, seed: int = 0) -> Architecture:
    """The architecture that MODEL names. Raises SpecError (unknown), UnsafeError (code without trust)."""
    kind, _, name = source.partition(":")
    if source in ("demo", "demo:untrained"):
        return _demo(source, seed)
    if kind == "torchvision" and name:
        return _torchvision(name)
    if kind == "timm" and name:
        return _timm(name)
    if (
        source.endswith(".py")
        or ".py:" in source
        or (name and "." not in kind[:1] and kind not in ("torchvision", "timm"))
    ):
        return _trusted(source, trust)
    return _torchvision(source)


def _torchvision(name: str) -> Architecture:
    from torchvision import models

    known = models.list_models(module=models) + models.list_models(module=models.segmentation)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "`dissect run --help` names the kinds of models"
        raise SpecError(f"torchvision has no model {name!r}: {hint}")

    def build(classes: int | None) -> nn.Module:
        options: dict[str, object] = {"weights": None}
        if "segmentation" in models.get_model_builder(name).__module__:
            options["weights_backbone"] = None
        if name in ("googlenet", "inception_v3"):
            options |= {"init_weights": True, "aux_logits": True}
        if classes is not None:
            options["num_classes"] = classes
        return models.get_model(name, **options)

    return Architecture(f"torchvision:{name}", build)


def _timm(name: str) -> Architecture:
    try:
        import timm
    except ImportError:
        raise SpecError("timm is not installed: pip install 'dissect[timm]'") from None
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.5)
        raise SpecError(f"timm has no model {name!r}" + (f": did you mean {', '.join(near)}?" if near else ""))

    def build(classes: int | None) -> nn.Module:
        options = {} if classes is None else {"num_classes": classes}
        return timm.create_model(name, pretrained=False, **options)

    given = timm.get_pretrained_cfg(name)
    if given is None:
        return Architecture(f"timm:{name}", build)
    mean, std = (tuple(float(v) for v in values) for values in (given.mean, given.std))
    return Architecture(f"timm:{name}", build, Preprocessing(mean, std, "timm's for this model"))  # type: ignore[arg-type]


def _demo(source: str, seed: int) -> Architecture:
    from dissect.models import demo

    preprocessing = Preprocessing(demo.MEAN, demo.STD, "the demo network's own")
    build = demo.trained if source == "demo" else lambda: demo.untrained(seed)
    return Architecture(source, lambda classes: build(), preprocessing)


def _trusted(source: str, trust: str | None) -> Architecture:
    """`FILE.py:factory` or `pkg.module:factory`, run only if the file's hash is the one that the user vouches for."""
    place, _, factory = source.rpartition(":")
    if not place:
        place, factory = source, "model"
    path = Path(place) if place.endswith(".py") else _module_file(place)
    if path is None or not path.is_file():
        raise SpecError(f"model {source!r} names no file: expected FILE.py:factory or pkg.module:factory")
    text = path.read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    if trust != digest:
        why = "it is code" if trust is None else f"--trust-code is {trust[:12]}…, but its hash is another"
        raise UnsafeError(
            f"model {source!r} is refused: {why}. Read {path.name}; if you trust it, repeat the command with\n"
            f"  --trust-code {digest}"
        )
    name = f"dissect_trusted_{digest[:16]}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[name] = module
    exec(compile(text, str(path), "exec"), module.__dict__)  # noqa: S102 - the very bytes whose hash was given
    make = getattr(module, factory, None)
    if not callable(make):
        raise SpecError(f"{path.name} has no function {factory!r}")
    takes_classes = "num_classes" in inspect.signature(make).parameters

    def build(classes: int | None) -> nn.Module:
        network = make(num_classes=classes) if takes_classes and classes is not None else make()
        if not isinstance(network, nn.Module):
            raise SpecError(
                f"{factory}() in {path.name} returns a {type(network).__name__}, expected a torch.nn.Module"
            )
        return network

    return Architecture(f"{path.name}:{factory}@{digest[:16]}", build)


def _module_file(name: str) -> Path | None:
    """The file of a module, found without importing its last part."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def last_layer(tensors: dict[str, Tensor]) -> str | None:
    """Name of the last weight matrix or 1 x 1 convolution of a network's own state dict: that of its classes."""
    last = None
    for name, value in tensors.items():
        if name.endswith("weight") and (value.dim() == 2 or (value.dim() == 4 and value.shape[2:] == (1, 1))):
            last = name
    return last
