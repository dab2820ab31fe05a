"""A network as a list of steps: traced once, in-place steps made plain, ending with the layer that is read."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from dissect.attribution.network import OUTPUT

_IN_PLACE_OPERATORS: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
# Steps that may hand on the memory of their input.
_ALIASES = {
    "view",
    "reshape",
    "flatten",
    "squeeze",
    "unsqueeze",
    "permute",
    "transpose",
    "chunk",
    "split",
    "getitem",
    "t",
    "narrow",
    "select",
    "unbind",
    "expand",
    "contiguous",
    "dropout",
    "dropout2d",
    "stochastic_depth",
    "detach",
}
_ALIAS_MODULES = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.Flatten, nn.Unflatten)


class Untraceable(Exception):
    """Why a network has no list of steps; the dense path serves it."""


@dataclass(frozen=True)
class Trace:
    """nodes in order, from the image (first) to the layer read (last); modules by their dotted names; last_use[node] is
    the step after which a node's value is no longer needed."""

    nodes: tuple[fx.Node, ...]
    modules: dict[str, nn.Module]
    attributes: dict[fx.Node, Any]
    last_use: dict[fx.Node, int]


class _Tracer(fx.Tracer):
    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, fx.Node] = {}

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        result = super().call_module(m, forward, args, kwargs)
        if isinstance(result, fx.Proxy):
            self.outputs[self.path_of_module(m)] = result.node
        return result


def trace(module: nn.Module, layer: str) -> Trace:
    """Steps up to a layer's last call. Raises Untraceable with the reason. The module must be in eval mode."""
    tracer = _Tracer()
    try:
        graph = tracer.trace(module)
    except Exception as error:  # tracing runs the author's code on proxies: it may fail in any way
        raise Untraceable(
            f"it cannot be traced ({str(error).strip().splitlines()[0] if str(error) else type(error).__name__})"
        ) from error
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if any(node.users for node in inputs[1:]):
        raise Untraceable("it takes more than one input")
    modules = dict(module.named_modules())
    _without_in_place(graph, modules)
    # A layer is read when it returns, so what later overwrites its output does not concern it; the network's own
    # output is read at the very end.
    found = (
        next(node for node in graph.nodes if node.op == "output").args[0]
        if layer == OUTPUT
        else tracer.outputs.get(layer)
    )
    if not isinstance(found, fx.Node):
        raise Untraceable(f"its layer {layer!r} is not one traced tensor")
    result = found
    needed = _ancestors(result)
    order = tuple(node for node in graph.nodes if node in needed)
    if inputs[0] not in needed:
        raise Untraceable(f"its layer {layer!r} does not depend on the image")
    attributes = {node: _attribute(module, str(node.target)) for node in order if node.op == "get_attr"}
    last = {
        node: max((i for i, user in enumerate(order) if node in user.all_input_nodes), default=len(order))
        for node in order
    }
    last[result] = len(order)
    return Trace(order, modules, attributes, last)


def _ancestors(node: fx.Node) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        at = waiting.pop()
        if at not in found:
            found.add(at)
            waiting += at.all_input_nodes
    return found


def _attribute(module: nn.Module, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value


def writes_in_place(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a step overwrites its first argument."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    if node.kwargs.get("inplace") is True or node.target in _IN_PLACE_OPERATORS:
        return True
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op in ("call_function", "call_method") and name.endswith("_") and not name.endswith("__")


def _without_in_place(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    """Later readers of an overwritten value read the step that overwrote it. The steps themselves get copies."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not writes_in_place(node, modules) or not node.all_input_nodes:
            continue
        source = node.args[0] if node.args else node.kwargs.get("input")
        if not isinstance(source, fx.Node):
            raise Untraceable(f"its step {node.name} writes in place into something that was not traced")
        behind = source
        while _is_alias(behind, modules) and behind.all_input_nodes:
            behind = behind.all_input_nodes[0]
            if any(order[user] > order[node] for user in behind.users):
                raise Untraceable(
                    f"its step {node.name} writes in place into a view of {behind.name}, which is read later"
                )
        for user in list(source.users):
            if order[user] > order[node]:
                user.replace_input_with(source, node)
        if node.target in _IN_PLACE_OPERATORS:
            node.target = _IN_PLACE_OPERATORS[node.target]


def _is_alias(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], _ALIAS_MODULES)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op in ("call_function", "call_method") and name in _ALIASES
