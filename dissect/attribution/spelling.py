"""How Python spells a ReLU, a max pool, a linear map and a comparison: what a `TorchFunctionMode` is shown."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def _private(*names: str) -> list[Any]:
    """Functions behind the public ones, which is what a mode is shown."""
    return [getattr(F, name) for name in names if hasattr(F, name)]


_RELU = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
_CLAMP = {torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_, torch.clip, torch.clip_, Tensor.clip, Tensor.clip_}
_CLAMP_MIN = {torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_}
_THRESHOLD = {F.threshold, torch.threshold, torch.threshold_, *_private("_threshold", "threshold_")}
_MAXIMUM = {torch.maximum, Tensor.maximum, torch.max, Tensor.max}

ADAPTIVE_POOLS = {F.adaptive_max_pool2d, F.adaptive_max_pool2d_with_indices, *_private("_adaptive_max_pool2d")}
POOLS_WITH_INDICES = {F.max_pool2d_with_indices, F.adaptive_max_pool2d_with_indices}
POOLS = {F.max_pool2d, torch.max_pool2d, *_private("_max_pool2d")} | POOLS_WITH_INDICES | ADAPTIVE_POOLS

# Linear maps, with their arguments behind input, weight and bias.
LINEAR: dict[Any, tuple[str, ...]] = {
    F.linear: (),
    F.conv2d: ("stride", "padding", "dilation", "groups"),
    torch.conv2d: ("stride", "padding", "dilation", "groups"),
}

_COMPARED = ("gt", "ge", "lt", "le", "greater", "less", "sign", "heaviside")
COMPARISONS = {getattr(home, name) for home in (torch, Tensor) for name in _COMPARED} | {
    getattr(Tensor, f"__{name}__") for name in ("gt", "ge", "lt", "le")
}


def spelling(func: Callable[..., Any]) -> str:
    """A call as one would write it."""
    name = getattr(func, "__name__", str(func))
    home = next((at for at, place in (("torch", torch), ("F", F)) if getattr(place, name, None) is func), "Tensor")
    return f"{home}.{name}"


def is_zero(value: Any) -> bool:
    """Whether a value is 0 everywhere, and not computed from the image."""
    if isinstance(value, Tensor):
        return not value.requires_grad and bool((value == 0).all())
    return isinstance(value, int | float) and value == 0


def relu_input(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The x of a call that computes max(x, 0), in every spelling that Python shows; None for any other call."""

    def argument(position: int, name: str) -> Any:
        return args[position] if len(args) > position else kwargs.get(name)

    if func in _MAXIMUM:
        sides = (argument(0, "input"), argument(1, "other"))
        if not all(isinstance(side, Tensor) and side.is_floating_point() for side in sides):
            return None
        return sides[0] if is_zero(sides[1]) else sides[1] if is_zero(sides[0]) else None
    rectifies = (
        func in _RELU
        or (func in _CLAMP and is_zero(argument(1, "min")) and argument(2, "max") is None)
        or (func in _CLAMP_MIN and is_zero(argument(1, "min")))
        or (func in _THRESHOLD and is_zero(argument(1, "threshold")) and is_zero(argument(2, "value")))
    )
    found = argument(0, "input")
    return found if rectifies and isinstance(found, Tensor) else None
