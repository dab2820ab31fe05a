"""Put rules in place of every ReLU, max pool and linear map of a pass, however they are spelt, and keep the books.

A `TorchFunctionMode` sees every call that Python makes: modules, functions, methods, in-place, reused, shared inputs.
What it replaces is written down call by call; a walk over the autograd graph then witnesses that no rectifier was
left out (compiled or scripted code) and that no activation without a definition lies on the way. The module itself is
never touched.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.graph import Node
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dissect.attribution.rules import LinearRule, PoolRule, ReluRule
from dissect.errors import SpecError

EXTENSIONS = ("derivative",)


def _private(*names: str) -> list[Any]:
    """Functions behind the public ones, which is what a mode is shown."""
    return [getattr(F, name) for name in names if hasattr(F, name)]


_RELU = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
_CLAMP = {torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_, torch.clip, torch.clip_, Tensor.clip, Tensor.clip_}
_CLAMP_MIN = {torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_}
_THRESHOLD = {F.threshold, torch.threshold, torch.threshold_, *_private("_threshold", "threshold_")}
_MAXIMUM = {torch.maximum, Tensor.maximum, torch.max, Tensor.max}
_POOL = {F.max_pool2d, torch.max_pool2d, *_private("_max_pool2d")}
_POOL_INDICES = {F.max_pool2d_with_indices}
_ADAPTIVE_POOL = {F.adaptive_max_pool2d, *_private("_adaptive_max_pool2d")}
_ADAPTIVE_POOL_INDICES = {F.adaptive_max_pool2d_with_indices}
_POOLS = _POOL | _POOL_INDICES | _ADAPTIVE_POOL | _ADAPTIVE_POOL_INDICES
_COMPARISON = {
    getattr(home, name)
    for home, names in (
        (torch, ("gt", "ge", "lt", "le", "greater", "less", "sign", "heaviside")),
        (
            Tensor,
            ("gt", "ge", "lt", "le", "greater", "less", "sign", "heaviside", "__gt__", "__ge__", "__lt__", "__le__"),
        ),
    )
    for name in names
}

# Nodes of the autograd graph, without their trailing "Backward0": those that rectify, those of activations for which
# the rules have no definition, gates that keep their derivative, and what the other slots must not miss.
_RECTIFIER_NODES = {"Relu", "Threshold"}
_CLAMP_NODES = {"Clamp", "ClampMin"}
_UNDEFINED_NODES = {
    "Gelu": "GELU",
    "Silu": "SiLU",
    "Mish": "Mish",
    "Elu": "ELU",
    "Celu": "CELU",
    "LeakyRelu": "LeakyReLU",
    "PreluKernel": "PReLU",
    "RreluWithNoise": "RReLU",
    "RreluWithNoiseFunctional": "RReLU",
    "Softplus": "Softplus",
    "Hardtanh": "ReLU6 or Hardtanh",
    "Hardswish": "Hardswish",
    "Softshrink": "Softshrink",
    "Hardshrink": "Hardshrink",
    "LogSigmoid": "LogSigmoid",
}
_GATE_NODES = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Hardsigmoid": "hard sigmoid", "Softmax": "softmax"}
_POOL_NODES = {
    "MaxPool2DWithIndices",
    "AdaptiveMaxPool2D",
    "MaxPool3DWithIndices",
    "AdaptiveMaxPool3D",
    "MkldnnMaxPool2D",
}
_LINEAR_NODES = {"Convolution", "Addmm", "Mm", "Bmm", "Linear", "MkldnnConvolution", "Addbmm", "Baddbmm"}
_OURS = {"_Relu": "relu", "_Pool": "max-pool", "_Linear": "linear"}


@dataclass(frozen=True)
class Call:
    """One replaced call: its kind (relu, max-pool, linear), the layer it ran in, and how it was spelt."""

    kind: str
    layer: str
    spelling: str
    shape: tuple[int, ...]
    in_place: bool


@dataclass
class Audit:
    """The books of one pass: every replaced call, and what was left to its own derivative."""

    calls: list[Call] = field(default_factory=list)
    extended: Counter[str] = field(default_factory=Counter)  # activations under the named extension
    natural: Counter[str] = field(default_factory=Counter)  # gates without a rule, left as they are
    comparisons: list[str] = field(default_factory=list)  # layers that compare activations: maybe a hand-written ReLU
    found: Counter[str] = field(default_factory=Counter)  # what the walk over the graph met again

    def count(self, kind: str) -> int:
        """How many calls of a kind were replaced."""
        return sum(call.kind == kind for call in self.calls)

    def json(self) -> dict[str, Any]:
        """Plain values for files and databases."""
        return {
            "replaced": dict(Counter(call.kind for call in self.calls)),
            "calls": [
                {
                    "kind": c.kind,
                    "layer": c.layer,
                    "spelling": c.spelling,
                    "shape": list(c.shape),
                    "in_place": c.in_place,
                }
                for c in self.calls
            ],
            "extended": dict(self.extended),
            "natural": dict(self.natural),
            "comparisons": self.comparisons,
        }

    def lines(self) -> list[str]:
        """The same in words."""
        text = []
        for kind, number in Counter(call.kind for call in self.calls).items():
            spelt = Counter(call.spelling for call in self.calls if call.kind == kind)
            text.append(f"{number} {kind} calls replaced ({', '.join(f'{n} x {s}' for s, n in spelt.items())})")
        for name, number in self.extended.items():
            text.append(f"{number} x {name}: extension 'derivative' (no published definition)")
        for name, number in self.natural.items():
            text.append(f"{number} x {name}: plain derivative")
        if self.comparisons:
            text.append(
                f"activations are compared in {', '.join(sorted(set(self.comparisons)))}: "
                "a ReLU written by hand would not have been replaced"
            )
        return text


class _Relu(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: ReluRule) -> Tensor:
        ctx.save_for_backward(x > 0)
        ctx.rule = rule
        return torch.relu(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.rule.back(grads[0], ctx.saved_tensors[0]), None


class _Pool(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, pool: Callable[[Tensor], tuple[Tensor, Tensor]], rule: PoolRule
    ) -> tuple[Tensor, Tensor]:
        value, place = pool(x)
        ctx.save_for_backward(place)
        ctx.rule, ctx.shape = rule, x.shape
        ctx.mark_non_differentiable(place)
        return value, place

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (place,) = ctx.saved_tensors
        height, width = ctx.shape[-2:]
        below = ctx.rule.back(grads[0].flatten(-2), place.flatten(-2), height * width)
        return below.view(ctx.shape), None, None


class _Linear(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        call: Callable[[Tensor, Tensor, Tensor | None], Tensor],
        rule: LinearRule,
    ) -> Tensor:
        z = call(x, weight, bias)
        ctx.save_for_backward(x, weight, z.clone())  # an in-place ReLU may overwrite what is returned
        ctx.call, ctx.rule = call, rule
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, weight, z = ctx.saved_tensors

        def call(values: Tensor, w: Tensor) -> Tensor:
            return ctx.call(values, w, None)

        def pull(w: Tensor, s: Tensor) -> Tensor:
            with torch.enable_grad():
                at = x.detach().requires_grad_()
                return torch.autograd.grad(call(at, w), at, s)[0]

        return ctx.rule.back(grads[0], x, weight, z, call, pull), None, None, None, None


class Rewiring(TorchFunctionMode):
    """Context in which the calls of a pass follow the rules given; an empty slot leaves its calls alone.

    `audit` holds the books; `verify` closes them over the graph of a score.
    """

    def __init__(
        self,
        module: nn.Module,
        relu: ReluRule | None = None,
        pool: PoolRule | None = None,
        linear: LinearRule | None = None,
        extension: str | None = None,
    ) -> None:
        super().__init__()
        if extension is not None and extension not in EXTENSIONS:
            raise SpecError(f"extension {extension!r} is unknown: expected {', '.join(EXTENSIONS)}")
        self.relu, self.pool, self.linear, self.extension = relu, pool, linear, extension
        self.audit = Audit()
        self._module = module
        self._within: list[str] = []

    @contextmanager
    def applied(self) -> Iterator["Rewiring"]:
        """The mode, with hooks that tell in which layer a call runs; they are gone afterwards."""
        handles: list[torch.utils.hooks.RemovableHandle] = []
        if self.relu or self.pool or self.linear:
            for name, part in self._module.named_modules():
                if isinstance(part, torch.jit.ScriptModule):
                    continue
                handles.append(part.register_forward_pre_hook(self._enter(name)))
                handles.append(part.register_forward_hook(self._leave, always_call=True))
        try:
            with self:
                yield self
        finally:
            for handle in handles:
                handle.remove()
            self._within.clear()

    def _enter(self, name: str) -> Callable[[nn.Module, object], None]:
        def note(module: nn.Module, inputs: object) -> None:
            self._within.append(name)

        return note

    def _leave(self, module: nn.Module, inputs: object, output: object) -> None:
        if self._within:
            self._within.pop()

    def _note(self, kind: str, spelling: str, x: Tensor, in_place: bool) -> None:
        self.audit.calls.append(
            Call(kind, self._within[-1] if self._within else "", spelling, tuple(x.shape), in_place)
        )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.relu is not None and func in _MAXIMUM and len(args) == 2 and _is_zero(args[0]):
            args = (args[1], args[0])
        x = args[0] if args else kwargs.get("input", kwargs.get("self"))
        if isinstance(x, Tensor) and x.requires_grad and x.is_floating_point():
            if self.relu is not None:
                if _is_relu(func, args, kwargs):
                    return self._relu_call(func, x, args, kwargs)
                if func in _COMPARISON and x.dim() > 1:
                    self.audit.comparisons.append(self._within[-1] if self._within else "")
            if self.pool is not None and func in _POOLS:
                return self._pool_call(func, x, args, kwargs)
            if self.linear is not None and func in _LINEAR:
                return self._linear_call(func, args, kwargs)
        return func(*args, **kwargs)

    def _relu_call(self, func: Callable[..., Any], x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        assert self.relu is not None
        name = getattr(func, "__name__", str(func))
        in_place = name.endswith("_") or bool(kwargs.get("inplace", func is F.relu and len(args) > 1 and args[1]))
        self._note("relu", _spelling(func, name), x, in_place)
        value = _Relu.apply(x, self.relu)
        # The input itself must change too: whoever reads it later reads the rectified values.
        return x.copy_(value) if in_place else value

    def _pool_call(self, func: Callable[..., Any], x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert self.pool is not None
        given = {**dict(zip(("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"), args)), **kwargs}
        given.pop("input")
        given.pop("return_indices", None)
        adaptive = func in _ADAPTIVE_POOL or func in _ADAPTIVE_POOL_INDICES
        if adaptive:
            given = {"output_size": kwargs.get("output_size", args[1] if len(args) > 1 else None)}
        run = F.adaptive_max_pool2d if adaptive else F.max_pool2d
        self._note("max-pool", getattr(func, "__name__", str(func)), x, False)
        value, place = _Pool.apply(x, lambda at: run(at, **given, return_indices=True), self.pool)
        return (value, place) if func in _POOL_INDICES or func in _ADAPTIVE_POOL_INDICES else value

    def _linear_call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        assert self.linear is not None
        names = ("input", "weight", "bias", *_LINEAR[func])
        given = {**dict(zip(names, args)), **kwargs}
        x, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
        self._note("linear", getattr(func, "__name__", str(func)), x, False)
        result = _Linear.apply(
            x,
            weight.detach(),
            None if bias is None else bias.detach(),
            lambda a, w, b: func(a, w, b, **given),
            self.linear,
        )
        assert isinstance(result, Tensor)
        return result

    # The second witness ------------------------------------------------------------------------------------------

    def verify(self, score: Tensor) -> None:
        """Walk the graph of a score: complete the audit, set the extension's gates, and refuse what is not defined.

        Raises SpecError: no call was replaced; a rectifier was computed where it could not be replaced; an activation
        has no definition under the rule and the extension was not asked for.
        """
        missed: Counter[str] = Counter()
        undefined: list[tuple[Node, str]] = []
        for node in _graph(score):
            name = node.name().rstrip("0123456789").removesuffix("Backward")
            clamp = _clamps_at_zero(node) if name in _CLAMP_NODES else ""
            if name in _OURS:
                self.audit.found[_OURS[name]] += 1
            elif self.relu and (name in _RECTIFIER_NODES or clamp == "relu" or _is_zero_maximum(node, name)):
                missed["ReLU"] += 1
            elif self.pool and name in _POOL_NODES:
                missed["max pool"] += 1
            elif self.linear and name in _LINEAR_NODES:
                missed["linear map"] += 1
            elif self.relu and (name in _UNDEFINED_NODES or clamp == "clip"):
                undefined.append((node, _UNDEFINED_NODES.get(name, "clamp from 0 with a ceiling")))
            elif isinstance(node, torch.autograd.function.BackwardCFunction) or name == "CheckpointFunction":
                undefined.append((node, f"the custom function {name}"))
            elif self.relu and name in _GATE_NODES:
                self.audit.natural[_GATE_NODES[name]] += 1
        for what, number in missed.items():
            raise SpecError(
                f"{number} x {what} out of the rule's reach (compiled or scripted code, attention products): "
                "load the network as plain Python modules, or use a method without this rule"
            )
        if undefined and self.extension is None:
            names = Counter(what for _, what in undefined)
            raise SpecError(
                f"the rule {self._rules()} has no definition at {', '.join(f'{n} x {w}' for w, n in names.items())}; "
                "the extension 'derivative' (--extension derivative) puts f'(x) in the place of (f > 0)"
            )
        for kind, rule in (("relu", self.relu), ("max-pool", self.pool), ("linear", self.linear)):
            # A network may well have no max pool; the ReLU and linear rules are what makes the method.
            if rule and kind != "max-pool" and not self.audit.found[kind] and not (kind == "relu" and undefined):
                raise SpecError(
                    f"no {kind} call lies between the image and the target, so {rule.name!r} would change nothing: "
                    "use the plain gradient"
                )
        for node, what in undefined:
            self.audit.extended[what] += 1
            self._extend(node)

    def _rules(self) -> str:
        return " + ".join(repr(rule.name) for rule in (self.relu, self.pool, self.linear) if rule)

    def _extend(self, node: Node) -> None:
        """The rule at an activation without a definition: f'(x) stands for (f > 0), probed at ones."""
        if self.relu is None:
            return
        rule = self.relu
        unit = torch.ones(())
        backward_gate = float(rule.back(-unit, unit)) == 0
        forward_gate = float(rule.back(unit, 0 * unit)) == 0
        if not forward_gate:
            # Without the forward gate the value passes as it arrives, rectified.
            node.register_hook(lambda below, above: (above[0].clamp(min=0), *below[1:]))
        elif backward_gate:
            node.register_prehook(lambda above: tuple(None if g is None else g.clamp(min=0) for g in above))


_LINEAR: dict[Any, tuple[str, ...]] = {
    F.linear: (),
    F.conv2d: ("stride", "padding", "dilation", "groups"),
    torch.conv2d: ("stride", "padding", "dilation", "groups"),
}


def _spelling(func: Callable[..., Any], name: str) -> str:
    if func is F.relu:
        return "F.relu"
    return ("Tensor." if "method" in type(func).__name__ else "torch.") + name


def _argument(position: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[position] if len(args) > position else kwargs.get(name)


def _is_zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.requires_grad and bool((value == 0).all())
    return isinstance(value, int | float) and value == 0


def _is_relu(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call computes max(x, 0): every spelling that Python shows."""
    if func in _RELU:
        return True
    if func in _CLAMP:
        return _is_zero(_argument(1, "min", args, kwargs)) and _argument(2, "max", args, kwargs) is None
    if func in _CLAMP_MIN:
        return _is_zero(_argument(1, "min", args, kwargs))
    if func in _THRESHOLD:
        return _is_zero(_argument(1, "threshold", args, kwargs)) and _is_zero(_argument(2, "value", args, kwargs))
    if func in _MAXIMUM:
        other = _argument(1, "other", args, kwargs)
        return isinstance(other, Tensor) and other.is_floating_point() and _is_zero(other)
    return False


def _pool_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    given = {**dict(zip(("kernel_size", "stride", "padding", "dilation", "ceil_mode"), args)), **kwargs}
    kernel = given["kernel_size"]
    return (
        kernel,
        given.get("stride") or kernel,
        given.get("padding", 0),
        given.get("dilation", 1),
        given.get("ceil_mode", False),
    )


def _clamps_at_zero(node: Node) -> str:
    """relu: max(x, 0); clip: min(max(x, 0), m); nothing for other bounds, which are no activations."""
    low = getattr(node, "_saved_min", None)
    high = getattr(node, "_saved_max", None)
    if not _is_zero(low):
        return ""
    return "relu" if high is None else "clip"


def _is_zero_maximum(node: Node, name: str) -> bool:
    return name == "Maximum" and any(_is_zero(getattr(node, side, None)) for side in ("_saved_self", "_saved_other"))


def _graph(score: Tensor) -> Iterator[Node]:
    """Every node above the leaves of a score's graph, once."""
    seen: set[Node] = set()
    waiting = [score.grad_fn] if score.grad_fn is not None else []
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [below for below, _ in node.next_functions if below is not None]
