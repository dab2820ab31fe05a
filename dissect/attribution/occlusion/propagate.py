"""Incremental occlusion: carry a changed patch through the network instead of whole images.

A convolution or pool reads a box of its input; only outputs whose box meets the patch can change. For every window
those outputs are one small box, so their inputs are gathered (cached base map + patch) into a dense batch and the stock
operation runs on it. Steps that act on single places run on the patch; sums and concatenations on the union of the
boxes; the global mean is the base mean plus the change. As soon as a box covers most of its map, and for every step
that is not known here, whole maps go on, so the result is the masked forward pass in any case. The idea is Krypton's
(Nakandala, Kumar and Papakonstantinou 2019, SIGMOD).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from dissect.attribution.occlusion.kinds import (
    Concatenation,
    GlobalMean,
    Kind,
    Merge,
    Pair,
    Pointwise,
    Same,
    Window,
    recognise,
    source_of,
)
from dissect.attribution.occlusion.linear import linear
from dissect.attribution.occlusion.tracing import Trace, writes_in_place
from dissect.attribution.occlusion.values import Dense, Patch, cut_base

# A box that covers more than this share of its map goes on as a whole map: gathering no longer pays.
DENSE_FROM = 0.8

_SHAPES = {"size", "dim", "shape", "numel"}

Flow = dict[fx.Node, Patch | Dense]


class Propagation:
    """The steps of a traced network with every base value of one image, ready for any set of windows.

    cap: the approximate mode: no box grows beyond this share of its map's height or width (None: exact).
    """

    def __init__(self, steps: Trace, x: Tensor, cap: float | None = None, dense_from: float = DENSE_FROM) -> None:
        self.steps, self.cap, self.dense_from = steps, cap, dense_from
        self.base: dict[fx.Node, Any] = {}
        self.kinds: dict[fx.Node, Kind | None] = {}
        self.incremental_steps = 0
        self._image = steps.nodes[0]
        for node in steps.nodes:
            self.base[node] = _keep(self._run_base(node, x))
            self.kinds[node] = recognise(node, self._module(node), self.base)
        self._depends = _dependents(steps)
        self.cut_at = self._find_cut()

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.steps.modules[str(node.target)] if node.op == "call_module" else None

    def _run_base(self, node: fx.Node, x: Tensor) -> Any:
        if node.op == "placeholder":
            return x if node is self._image else node.args[0] if node.args else None
        if node.op == "get_attr":
            return self.steps.attributes[node]
        return self._execute(node, lambda at: self.base[at])

    def _execute(self, node: fx.Node, read: Callable[[fx.Node], Any]) -> Any:
        """One step with its arguments as `read` gives them; an in-place step gets a copy of its first."""
        args = fx.node.map_arg(node.args, read)
        kwargs = fx.node.map_arg(node.kwargs, read)
        if writes_in_place(node, self.steps.modules) and args and isinstance(args[0], Tensor):
            args = (args[0].clone(), *args[1:])
        module = self._module(node)
        if type(module) is nn.Linear and args and isinstance(args[0], Tensor):
            return linear(module, args[0])
        # The network's own maps lie unit by unit in memory, and a view may count on it.
        if node.op == "call_method" and node.target == "view" and isinstance(args[0], Tensor):
            args = (args[0].contiguous(), *args[1:])
        return self._call(node, args, kwargs)

    def _call(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self._module(node)
        if module is not None:
            return module(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    # One set of windows ------------------------------------------------------------------------------------------

    def head(self, patch: Patch) -> Patch | Dense:
        """The changed image -> the value of the last step of the head."""
        self.incremental_steps = 0
        return self._run(range(1, self.cut_at + 1), {self._image: patch}, len(patch.values))

    @property
    def has_tail(self) -> bool:
        """Whether steps are left behind the head."""
        return self.cut_at < len(self.steps.nodes) - 1

    def tail(self, value: Tensor) -> Tensor:
        """The head's dense values for any number of windows [K, …] -> the value of the last step."""
        flow: Flow = {self.steps.nodes[self.cut_at]: Dense(value)}
        result = self._run(range(self.cut_at + 1, len(self.steps.nodes)), flow, len(value))
        assert isinstance(result, Dense)
        assert isinstance(result.values, Tensor)
        return result.values

    def _run(self, numbers: range, flow: Flow, count: int) -> Patch | Dense:
        node = next(iter(flow))
        for number in numbers:
            node = self.steps.nodes[number]
            if node in self._depends:
                flow[node] = self._incremental(node, flow) or self._dense(node, flow, count)
                self.incremental_steps += isinstance(flow[node], Patch)
            for used in node.all_input_nodes:
                if self.steps.last_use[used] <= number:
                    flow.pop(used, None)
        return flow[node]

    def _find_cut(self) -> int:
        """The first step that everything passes through as a vector: what lies behind it has no space and is cheap to
        do for all windows at once, where its weights are read once. The last step if there is none."""
        live: set[fx.Node] = set()
        for number, node in enumerate(self.steps.nodes):
            live = {at for at in live if self.steps.last_use[at] > number}
            if node in self._depends:
                live.add(node)
            value = self.base[node]
            if (
                number
                and live == {node}
                and isinstance(value, Tensor)
                and value.dim() >= 2
                and value.shape[1] == value.numel()
            ):
                return number
        return len(self.steps.nodes) - 1

    def reach(self, low: Tensor, high: Tensor) -> Tensor:
        """What changes from low to high [K, 2] cost along each axis, [K, 2]: the work of all steps times the extent of
        their change, found without arithmetic. Windows of like reach share boxes that fit."""
        cost = torch.zeros(low.shape, dtype=torch.float64)
        boxes = {self._image: (low, high)}
        for node in self.steps.nodes[1 : self.cut_at + 1]:
            if node not in self._depends:
                continue
            kind, sides = self.kinds[node], [boxes[at] for at in node.all_input_nodes if at in boxes]
            if kind is None or isinstance(kind, GlobalMean):
                break
            if isinstance(kind, Window):
                low, high = kind.changed(*sides[0], _size(self.base[node]), self.cap)
                cost += kind.cost * (high - low)
            else:
                low, high = torch.stack([s[0] for s in sides]).amin(0), torch.stack([s[1] for s in sides]).amax(0)
            boxes[node] = (low, high)
        return cost

    # One step ----------------------------------------------------------------------------------------------------

    def _dense(self, node: fx.Node, flow: Flow, count: int) -> Dense:
        """The step on whole batches: every value of the image stands there K times."""
        only_shape = (node.op == "call_method" and node.target in _SHAPES) or (
            node.op == "call_function" and node.target is getattr and node.args[1] in _SHAPES | {"device", "dtype"}
        )

        def read(at: fx.Node) -> Any:
            value = flow.get(at)
            if isinstance(value, Patch):
                if only_shape:
                    return value.base.expand(count, -1, -1, -1)
                # Two steps may read this value; the whole map is made once.
                value = flow[at] = Dense(value.dense())
            return value.values if isinstance(value, Dense) else self.base[at]

        return Dense(self._execute(node, read))

    def _incremental(self, node: fx.Node, flow: Flow) -> Patch | Dense | None:
        """The step on the patch, or None where it is not known or does not pay."""
        kind = self.kinds[node]
        inputs = {at: flow[at] for at in node.all_input_nodes if at in flow}
        patches = {at: value for at, value in inputs.items() if isinstance(value, Patch)}
        if kind is None or not patches or len(patches) < len(inputs):
            return None
        if isinstance(kind, Merge):
            return self._merge(node, patches)
        if isinstance(kind, Concatenation):
            return self._concatenation(node, kind, patches)
        source = source_of(node)
        if source not in patches or len(patches) > 1:
            return None
        patch = patches[source]
        match kind:
            case Same():
                return patch.over(patch.values, self.base[node])
            case Pointwise():
                return self._pointwise(node, source, patch)
            case GlobalMean():
                return self._global_mean(node, patch)
            case Window():
                return self._window(node, kind, patch)

    def _pointwise(self, node: fx.Node, source: fx.Node, patch: Patch) -> Patch:
        """A step that acts on every place alike runs on the patch itself."""
        values = patch.values
        if writes_in_place(node, self.steps.modules) and not self._fresh(source):
            values = values.clone()
        args, kwargs = fx.node.map_arg(
            (node.args, dict(node.kwargs)), lambda at: values if at is source else self.base[at]
        )
        return patch.over(self._call(node, args, kwargs), self.base[node])

    def _fresh(self, node: fx.Node) -> bool:
        """Whether nobody else reads a step's patch, so that the next step may overwrite it."""
        made = isinstance(self.kinds[node], Window | Merge) or isinstance(self._module(node), nn.BatchNorm2d)
        return made and len(node.users) == 1

    def _window(self, node: fx.Node, window: Window, patch: Patch) -> Patch | None:
        """A step that reads a box of its input runs on what the changed outputs read."""
        base = self.base[node]
        if window.keeps_places:
            return patch.over(window.apply(patch.values), base)
        low, high = window.changed(patch.low, patch.high, _size(base), self.cap)
        boxes = self._boxes(low, high, _size(base))
        if boxes is None:
            return None
        origin, size = boxes
        return Patch(window.apply(patch.cut(*window.needed(origin, size), window.fill)), origin, base, low, high)

    def _boxes(self, low: Tensor, high: Tensor, out: Pair) -> tuple[Tensor, Pair] | None:
        """(origin, size) of boxes of one size that hold every change, or None where whole maps are cheaper."""
        rows, columns = (high - low).amax(0).tolist()
        if rows * columns > self.dense_from * out[0] * out[1]:
            return None
        return torch.minimum(low, torch.tensor(out) - torch.tensor((rows, columns))), (rows, columns)

    def _global_mean(self, node: fx.Node, patch: Patch) -> Dense:
        """Mean of the base plus the mean of the change."""
        base = self.base[node]
        change = patch.values - cut_base(patch.base, patch.origin, patch.size)
        mean = change.sum((2, 3)) / (patch.base.shape[2] * patch.base.shape[3])
        return Dense(base + mean.view(len(mean), *base.shape[1:]))

    # Steps that join values --------------------------------------------------------------------------------------

    def _merge(self, node: fx.Node, patches: dict[fx.Node, Patch]) -> Patch | None:
        """A sum or product of maps: both sides over the union of their boxes."""
        base = self.base[node]
        fixed = [at for at in node.all_input_nodes if at not in patches and not _one_for_all(self.base[at])]
        # What is broadcast over space changes the whole map.
        if any(self.base[at].shape[2:] != base.shape[2:] for at in (*patches, *fixed)):
            return None
        boxes = self._union(list(patches.values()), _size(base))
        if boxes is None:
            return None
        origin, size, low, high = boxes

        def side(at: fx.Node) -> Any:
            if at in patches:
                return patches[at].cut(origin, size)
            return cut_base(self.base[at], origin, size) if at in fixed else self.base[at]

        args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), side)
        if node.op == "call_method":
            result = getattr(args[0], str(node.target).rstrip("_"))(*args[1:], **kwargs)
        else:
            result = self._call(node, args, kwargs)
        return Patch(result, origin, base, low, high)

    def _concatenation(self, node: fx.Node, kind: Concatenation, patches: dict[fx.Node, Patch]) -> Patch | None:
        """Units of several maps: every part over the union of the boxes."""
        base = self.base[node]
        boxes = self._union(list(patches.values()), _size(base))
        if boxes is None:
            return None
        origin, size, low, high = boxes
        parts = [
            patches[at].cut(origin, size) if at in patches else cut_base(self.base[at], origin, size)
            for at in kind.parts
        ]
        return Patch(torch.cat(parts, 1), origin, base, low, high)

    def _union(self, patches: Sequence[Patch], out: Pair) -> tuple[Tensor, Pair, Tensor, Tensor] | None:
        """The common boxes of patches over maps of one size: (origin, size, low, high). None where they do not pay."""
        low = torch.stack([patch.low for patch in patches]).amin(0)
        high = torch.stack([patch.high for patch in patches]).amax(0)
        boxes = self._boxes(low, high, out)
        return None if boxes is None else (*boxes, low, high)


def _size(base: Tensor) -> Pair:
    return base.shape[2], base.shape[3]


def _one_for_all(value: Any) -> bool:
    """Whether a side of a sum is the same for every place."""
    return not isinstance(value, Tensor) or all(length == 1 for length in value.shape[-2:])


def _dependents(steps: Trace) -> set[fx.Node]:
    """The steps whose value changes with the image."""
    found = {steps.nodes[0]}
    for node in steps.nodes:
        if any(at in found for at in node.all_input_nodes):
            found.add(node)
    return found


def _keep(value: Any) -> Any:
    """Base maps wait in channels-last memory, where a place's units lie together."""
    if isinstance(value, Tensor) and value.dim() == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value
