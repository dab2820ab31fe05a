"""How large the values in a network can become, whatever picture it sees: interval arithmetic along its graph."""

import math
import operator
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

# What returns some of its values, or averages of them, or zeros.
_MODULES = (
    nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout, nn.Flatten,
    nn.Identity,
)  # fmt: skip
_FUNCTIONS = F.relu, torch.relu, F.max_pool2d, F.adaptive_avg_pool2d, torch.flatten, torch.cat
_SUMS = operator.add, operator.iadd, torch.add
_METHODS = "relu", "flatten", "contiguous"


def bounds(graph: fx.Graph, named: Mapping[str, nn.Module], largest: float) -> Iterator[tuple[fx.Node, float]]:
    """Every node in order with an upper bound of |x| for its output, in eval mode, if no input is beyond `largest`.

    Infinite behind an operation that is not known here. Rounding is not counted: leave a margin.
    """
    found: dict[fx.Node, float] = {}
    for node in graph.nodes:
        given = [found[before] for before in node.all_input_nodes]
        found[node] = largest if node.op == "placeholder" else _after(node, named, given)
        yield node, found[node]


def _after(node: fx.Node, named: Mapping[str, nn.Module], given: list[float]) -> float:
    if not given:
        return math.inf
    if node.op == "call_module":
        return _through(named[str(node.target)], given[0])
    if node.op == "call_function":
        if node.target in _SUMS:
            return sum(given) if len(given) == len(node.args) and not node.kwargs else math.inf
        return max(given) if node.target in _FUNCTIONS else math.inf
    return max(given) if node.op == "output" or node.target in _METHODS else math.inf


def _through(module: nn.Module, given: float) -> float:
    if type(module) is nn.ReLU6:
        return min(given, 6.0)
    if type(module) in _MODULES and getattr(module, "divisor_override", None) is None:
        return given
    rule = _RULES.get(type(module))
    return rule(module, given) if rule else math.inf


@torch.no_grad()
def _weighed(module: nn.Module, given: float) -> float:
    """The largest that any unit's weighted sum can be; infinite where a weight is not finite."""
    assert isinstance(module, nn.Conv2d | nn.Linear)
    bias = module.bias
    gain = module.weight.flatten(1).abs().sum(1, dtype=torch.float64) * given
    return _largest(gain if bias is None else gain + bias.abs())


@torch.no_grad()
def _normalised(module: nn.Module, given: float) -> float:
    assert isinstance(module, nn.BatchNorm2d)
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:
        return math.inf
    value = (mean.double().abs() + given) / (variance.double() + module.eps).sqrt()
    value = value if module.weight is None else value * module.weight.abs()
    return _largest(value if module.bias is None else value + module.bias.abs())


def _largest(values: Tensor) -> float:
    return float(values.max()) if bool(values.isfinite().all()) else math.inf


_RULES: Mapping[type[nn.Module], Callable[[nn.Module, float], float]] = {
    nn.Conv2d: _weighed,
    nn.Linear: _weighed,
    nn.BatchNorm2d: _normalised,
}
