"""Put rules in place of every ReLU, max pool and linear map of a pass, however they are spelt, and keep the books.

A `TorchFunctionMode` sees every call that Python makes: modules, functions, methods, in-place, reused, shared inputs.
What it replaces is written down call by call; `witness` then walks the autograd graph to make sure that no rectifier
was left out (compiled or scripted code) and that no activation without a definition lies on the way. The module itself
is never touched.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dissect.attribution.audit import Audit, Call
from dissect.attribution.rules import LinearRule, PoolRule, ReluRule, Rules
from dissect.attribution.spelling import (
    ADAPTIVE_POOLS,
    COMPARISONS,
    LINEAR,
    POOLS,
    POOLS_WITH_INDICES,
    relu_input,
    spelling,
)


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

    `audit` holds the books; `witness.verify` closes them over the graph of a score.
    """

    def __init__(self, module: nn.Module, rules: Rules) -> None:
        super().__init__()
        self.rules, self.audit = rules, Audit()
        self._module = module
        self._within: list[str] = []

    @contextmanager
    def applied(self) -> Iterator["Rewiring"]:
        """The mode, with hooks that tell in which layer a call runs; they are gone afterwards."""
        handles: list[torch.utils.hooks.RemovableHandle] = []
        for name, part in self._module.named_modules() if self.rules else ():
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

    def _note(self, kind: str, spelt: str, x: Tensor, in_place: bool = False) -> None:
        self.audit.calls.append(Call(kind, self._layer(), spelt, tuple(x.shape), in_place))

    def _layer(self) -> str:
        return self._within[-1] if self._within else ""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        rules = self.rules
        rectified = relu_input(func, args, kwargs) if rules.relu else None
        if rules.relu and rectified is not None and _is_on_the_way(rectified):
            return self._relu_call(func, rectified, args, kwargs, rules.relu)
        x = args[0] if args else kwargs.get("input", kwargs.get("self"))
        if isinstance(x, Tensor) and _is_on_the_way(x):
            if rules.relu and func in COMPARISONS and x.dim() > 1:
                self.audit.comparisons.append(self._layer())
            if rules.pool and func in POOLS:
                return self._pool_call(func, x, args, kwargs, rules.pool)
            if rules.linear and func in LINEAR:
                return self._linear_call(func, args, kwargs, rules.linear)
        return func(*args, **kwargs)

    def _relu_call(
        self, func: Callable[..., Any], x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], rule: ReluRule
    ) -> Tensor:
        flagged = kwargs.get("inplace", func is F.relu and len(args) > 1 and args[1])
        in_place = getattr(func, "__name__", "").endswith("_") or bool(flagged)
        self._note("relu", spelling(func), x, in_place)
        value = _Relu.apply(x, rule)
        # The input itself must change too: whoever reads it later reads the rectified values.
        return x.copy_(value) if in_place else value

    def _pool_call(
        self, func: Callable[..., Any], x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], rule: PoolRule
    ) -> Any:
        given = {**dict(zip(("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"), args)), **kwargs}
        given.pop("input")
        given.pop("return_indices", None)
        run: Callable[..., Any] = F.max_pool2d
        if func in ADAPTIVE_POOLS:
            run, size = F.adaptive_max_pool2d, args[1] if len(args) > 1 else kwargs["output_size"]
            given = {"output_size": size}
        self._note("max-pool", spelling(func), x)
        value, place = _Pool.apply(x, lambda at: run(at, **given, return_indices=True), rule)
        return (value, place) if func in POOLS_WITH_INDICES else value

    def _linear_call(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], rule: LinearRule
    ) -> Tensor:
        given = {**dict(zip(("input", "weight", "bias", *LINEAR[func]), args)), **kwargs}
        x, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
        self._note("linear", spelling(func), x)
        result = _Linear.apply(
            x,
            weight.detach(),
            None if bias is None else bias.detach(),
            lambda a, w, b: func(a, w, b, **given),
            rule,
        )
        assert isinstance(result, Tensor)
        return result


def _is_on_the_way(x: Tensor) -> bool:
    """Whether the score may depend on the image through this tensor."""
    return x.requires_grad and x.is_floating_point()
