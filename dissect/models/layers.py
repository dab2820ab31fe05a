"""Names and shapes of a network's layers."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dissect.errors import SpecError
from dissect.suggest import suggestion

if TYPE_CHECKING:
    from dissect.models.loading import Model


@dataclass(frozen=True)
class LayerInfo:
    """One module whose output can be dissected: dotted name, class, output shape without the batch, dtype, and how
    often it runs in one pass (a module that runs several times is read at its last call)."""

    name: str
    kind: str
    shape: tuple[int, ...]
    calls: int
    dtype: str


def layers(model: "Model | nn.Module", input_size: tuple[int, int] = (224, 224)) -> list[LayerInfo]:
    """Layers that return a tensor, in the order in which they finish, found by one pass over a black image.

    The module is left as it was found. Raises SpecError where the network cannot take that size.
    """
    module = model if isinstance(model, nn.Module) else model.module
    found: dict[str, LayerInfo] = {}

    def read(name: str, kind: str, output: object) -> None:
        if isinstance(output, Tensor):
            info = LayerInfo(name, kind, tuple(output.shape[1:]), 1, str(output.dtype).removeprefix("torch."))
            calls = found.pop(name).calls + 1 if name in found else 1
            found[name] = replace(info, calls=calls)

    handles = [
        child.register_forward_hook(lambda module, _, output, name=name: read(name, type(module).__name__, output))
        for name, child in module.named_modules()
        if name
    ]
    training = [(child, child.training) for child in module.modules()]
    try:
        module.eval()
        parameter = next(module.parameters(), torch.zeros(1))
        with torch.inference_mode():
            module(torch.zeros(1, 3, *input_size, dtype=parameter.dtype, device=parameter.device))
    except Exception as error:  # whatever the network's own forward raises
        why = str(error).partition("\n")[0] or type(error).__name__
        raise SpecError(
            f"the network cannot take an image of {input_size[0]} x {input_size[1]}: {why}; try another --input-size"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for child, flag in training:
            child.training = flag
    return list(found.values())


def resolve_layer(module: nn.Module, name: str) -> nn.Module:
    """The submodule of that dotted name. Raises SpecError with the nearest names."""
    named = dict(module.named_modules())
    if name and name in named:
        return named[name]
    known = [known for known in named if known]
    top = f"it has {', '.join(list(dict(module.named_children()))[:8])} …"
    raise SpecError(
        f"the model has no layer {name!r}{suggestion(name, known, top)} --layer '?' lists all with their shapes"
    )
