"""Convolutions whose output goes to one other module and nowhere else, found by tracing."""

from collections import Counter
from collections.abc import Iterator, Sequence

from torch import fx, nn


def trace(module: nn.Module) -> fx.Graph:
    """The graph of a network. Raises whatever its forward code raises on proxies: any exception."""
    return fx.Tracer().trace(module)


class Chains:
    """What a graph says of the modules of a network. keep: layers that will be read, and must return what they did."""

    def __init__(self, module: nn.Module, graph: fx.Graph, keep: Sequence[str]) -> None:
        self.named, self.keep = dict(module.named_modules()), keep
        self._graph = graph
        self._calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
        self._touched = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}

    def alone(self, name: str) -> bool:
        """Whether a module is called once, has no hooks, and is not looked into or read."""
        used = name in self._touched or name in self.keep or self.hooked(name)
        return self._calls[name] == 1 and not used

    def hooked(self, name: str) -> bool:
        module = self.named[name]
        return bool(module._forward_hooks or module._forward_pre_hooks)

    def after_convolutions(self) -> Iterator[tuple[fx.Node, fx.Node]]:
        """Calls of a Conv2d that is alone and of the module that takes its output, which nothing else does and no kept
        layer returns. Identities between the two are passed over."""
        for node in self._graph.nodes:
            if node.op != "call_module" or type(self.named[str(node.target)]) is nn.Identity:
                continue
            path = list(self._back(node))
            names = [str(one.target) for one in path]
            if not path or type(self.named[names[-1]]) is not nn.Conv2d:
                continue
            if all(self.alone(name) and not self._returned(name, str(node.target)) for name in names):
                yield path[-1], node

    def _back(self, node: fx.Node) -> Iterator[fx.Node]:
        """The calls before a node, up to the first that is no identity, as long as nothing branches off."""
        while node.args:
            before = node.args[0]
            if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
                return
            yield before
            if type(self.named[str(before.target)]) is not nn.Identity:
                return
            node = before

    def _returned(self, name: str, later: str) -> bool:
        """Whether a kept layer around the module `name` ends before `later`, and so returns what lies between."""
        return any(name.startswith(f"{kept}.") and not later.startswith(f"{kept}.") for kept in self.keep)
