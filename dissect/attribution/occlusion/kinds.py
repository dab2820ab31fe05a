"""What a step of a traced network does to a changed patch: the steps that incremental occlusion knows."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

Pair = tuple[int, int]


@dataclass(frozen=True)
class Pointwise:
    """Acts on every place alike."""


@dataclass(frozen=True)
class Same:
    """Hands its input on."""


@dataclass(frozen=True)
class GlobalMean:
    """The mean over all places."""


@dataclass(frozen=True)
class Merge:
    """A sum, product or extreme of two values, place by place."""


@dataclass(frozen=True)
class Concatenation:
    """The units of several maps beside each other."""

    parts: tuple[fx.Node, ...]


@dataclass(frozen=True)
class Window:
    """Output o reads inputs o * stride - padding … + dilation * (kernel - 1); outside the map stands `fill`.

    apply: the step without its padding, on any map. cost: products a place.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    fill: float
    apply: Callable[[Tensor], Tensor]
    cost: int = 0

    @property
    def reach(self) -> Pair:
        """Places from the first to the last that one output reads."""
        return self.dilation[0] * (self.kernel[0] - 1), self.dilation[1] * (self.kernel[1] - 1)

    @property
    def keeps_places(self) -> bool:
        """Whether every output reads the one input at its own place."""
        return self.reach == (0, 0) and self.stride == (1, 1) and self.padding == (0, 0)

    def changed(self, low: Tensor, high: Tensor, out: Pair, cap: float | None) -> tuple[Tensor, Tensor]:
        """The outputs (low, high), [K, 2] each, that see a change from low to high; out: the size of the map.

        cap: no more than this share of a side, around the middle (None: all of them).
        """
        grid, pads, reaches, limits = (torch.tensor(pair) for pair in (self.stride, self.padding, self.reach, out))
        low = torch.div(low + pads - reaches + grid - 1, grid, rounding_mode="floor").clamp(min=0)
        high = torch.minimum(torch.div(high - 1 + pads, grid, rounding_mode="floor") + 1, limits)
        # A change between the cells of a coarse step reaches no output: its box is one place that stays as it was.
        low = torch.minimum(low, limits - 1)
        high = torch.maximum(high, low + 1)
        if cap is None:
            return low, high
        spare = (high - low - torch.ceil(cap * limits).long().clamp(min=1)).clamp(min=0)
        left = torch.div(spare, 2, rounding_mode="floor")
        return low + left, high - (spare - left)

    def needed(self, origin: Tensor, size: Pair) -> tuple[Tensor, Pair]:
        """(where it starts [K, 2], its size) of the input that outputs of `size` from origin [K, 2] on read."""
        start = origin * torch.tensor(self.stride) - torch.tensor(self.padding)
        rows, columns = ((size[i] - 1) * self.stride[i] + self.reach[i] + 1 for i in (0, 1))
        return start, (rows, columns)


Kind = Pointwise | Same | GlobalMean | Merge | Concatenation | Window

_POINTWISE_MODULES = {
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Threshold, nn.BatchNorm2d,
    nn.Identity, nn.LocalResponseNorm, nn.CrossMapLRN2d, nn.Dropout, nn.Dropout2d, nn.AlphaDropout,
}  # fmt: skip
_POINTWISE_FUNCTIONS: set[Any] = {
    F.relu, F.relu_, torch.relu, torch.relu_, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish,
    F.hardswish, F.hardsigmoid, F.hardtanh, torch.sigmoid, torch.tanh, F.softplus, F.threshold, F.local_response_norm,
    F.dropout, F.dropout2d, torch.clamp, torch.abs, torch.neg, operator.neg, torch.exp, torch.sqrt,
}  # fmt: skip
_POINTWISE_METHODS = {
    "relu", "relu_", "sigmoid", "tanh", "clamp", "clamp_min", "clamp_", "clamp_min_", "abs", "neg", "contiguous",
    "clone", "detach",
}  # fmt: skip
_MERGES: set[Any] = {
    operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.maximum,
    torch.minimum,
}  # fmt: skip
_MERGE_METHODS = {"add", "add_", "sub", "sub_", "mul", "mul_"}


def recognise(node: fx.Node, module: nn.Module | None, base: dict[fx.Node, Any]) -> Kind | None:
    """The kind of a step, or None for one that is not known here: whole maps go on behind it.

    module: what a module step calls. base: the values of all steps for the unchanged image.
    """
    if node.op not in ("call_module", "call_function", "call_method"):
        return None
    if node.target in (torch.cat, torch.concat):
        return _concatenation(node, base[node])
    if node.target in _MERGES or (node.op == "call_method" and node.target in _MERGE_METHODS):
        return Merge()
    source = source_of(node)
    if source is None:
        return None
    if module is not None:
        return _of_module(module, base[source], base[node])
    return _of_call(node, base[source], base)


def source_of(node: fx.Node) -> fx.Node | None:
    """What a step acts on: its first argument."""
    source = _argument(node, 0, "input", None)
    return source if isinstance(source, fx.Node) else None


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _concatenation(node: fx.Node, after: Tensor) -> Concatenation | None:
    parts = _argument(node, 0, "tensors", ())
    if after.dim() != 4 or _argument(node, 1, "dim", 0) not in (1, -3):
        return None
    return Concatenation(tuple(at for at in parts if isinstance(at, fx.Node)))


def _of_module(module: nn.Module, before: Any, after: Any) -> Kind | None:
    if type(module) in _POINTWISE_MODULES:
        return Pointwise()
    if type(module) is nn.Conv2d and module.padding_mode == "zeros":
        return _convolution(
            module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups
        )  # fmt: skip
    if type(module) is nn.MaxPool2d and not module.return_indices:
        return _max_pool(module.kernel_size, module.stride, module.padding, module.dilation)
    if type(module) is nn.AvgPool2d:
        return _average_pool(
            module.kernel_size, module.stride, module.padding, module.ceil_mode, module.count_include_pad,
            module.divisor_override,
        )  # fmt: skip
    if type(module) is nn.AdaptiveAvgPool2d:
        return _adaptive_average(before, after)
    if type(module) is nn.AdaptiveMaxPool2d and not module.return_indices:
        return _adaptive(before, after, _max_pool)
    return None


def _of_call(node: fx.Node, before: Any, base: dict[fx.Node, Any]) -> Kind | None:
    """A function, or a method of its first argument."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if node.op == "call_method":
        return Pointwise() if name in _POINTWISE_METHODS else GlobalMean() if _is_global_mean(node, name) else None

    def given(**defaults: Any) -> dict[str, Any]:
        """Arguments behind the first by name, with the values that they have for the unchanged image."""
        named = {**defaults, **dict(zip(defaults, node.args[1:])), **node.kwargs}
        return {key: fx.node.map_arg(named[key], lambda at: base[at]) for key in defaults}

    if node.target in _POINTWISE_FUNCTIONS:
        return Pointwise()
    if name == "stochastic_depth":
        return None if _argument(node, 3, "training", True) else Same()
    if name == "conv2d":
        return _convolution(**given(weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1))
    if name == "max_pool2d":
        pool = given(kernel_size=None, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False)
        if pool["return_indices"]:
            return None
        return _max_pool(pool["kernel_size"], pool["stride"], pool["padding"], pool["dilation"])
    if name == "avg_pool2d":
        pool = given(
            kernel_size=None, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
        )
        return _average_pool(*pool.values())
    if name == "adaptive_avg_pool2d":
        return _adaptive_average(before, base[node])
    if name == "adaptive_max_pool2d" and isinstance(base[node], Tensor):
        return _adaptive(before, base[node], _max_pool)
    return GlobalMean() if _is_global_mean(node, name) else None


def _is_global_mean(node: fx.Node, name: str) -> bool:
    dims = _argument(node, 1, "dim", None)
    return name == "mean" and isinstance(dims, list | tuple) and {d % 4 for d in dims if isinstance(d, int)} == {2, 3}


def _pair(value: Any) -> Pair:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _convolution(
    weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Window | None:
    kernel, spread = (weight.shape[2], weight.shape[3]), _pair(dilation)
    if padding == "valid":
        padding = 0
    elif padding == "same":
        total = (spread[0] * (kernel[0] - 1), spread[1] * (kernel[1] - 1))
        if total[0] % 2 or total[1] % 2:
            return None  # one more zero behind than before
        padding = (total[0] // 2, total[1] // 2)
    return Window(
        kernel, _pair(stride), _pair(padding), spread, 0.0,
        lambda cut: F.conv2d(cut, weight, bias, stride, 0, dilation, groups), weight.numel(),
    )  # fmt: skip


def _max_pool(kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> Window:
    step = stride or kernel
    return Window(
        _pair(kernel), _pair(step), _pair(padding), _pair(dilation), -math.inf,
        lambda cut: F.max_pool2d(cut, kernel, step, 0, dilation),
    )  # fmt: skip


def _average_pool(
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil: bool = False,
    include: bool = True,
    divisor: int | None = None,
) -> Window | None:
    if ceil or (_pair(padding) != (0, 0) and not include):
        return None  # the divisor depends on the place
    step = stride or kernel
    return Window(
        _pair(kernel), _pair(step), _pair(padding), (1, 1), 0.0,
        lambda cut: F.avg_pool2d(cut, kernel, step, 0, divisor_override=divisor),
    )  # fmt: skip


def _adaptive_average(before: Tensor, after: Tensor) -> Kind | None:
    return GlobalMean() if tuple(after.shape[2:]) == (1, 1) else _adaptive(before, after, _average_pool)


def _adaptive(before: Tensor, after: Tensor, pool: Callable[[Pair], Window | None]) -> Kind | None:
    """An adaptive pool whose cells are all alike is a plain one; the identity is the smallest case."""
    (height, width), (rows, columns) = before.shape[2:], after.shape[2:]
    if height % rows or width % columns:
        return None
    cell = (height // rows, width // columns)
    return Same() if cell == (1, 1) else pool(cell)
