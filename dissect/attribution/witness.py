"""The second witness: a walk over the autograd graph of a score, which no spelling escapes."""

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.graph import Node

from dissect.attribution.audit import Audit
from dissect.attribution.rules import ReluRule, Rules
from dissect.attribution.spelling import is_zero
from dissect.errors import SpecError

EXTENSIONS = ("derivative",)

# Nodes of the autograd graph, without their trailing "Backward0": those that rectify; those of activations for which
# the rules have no definition; those that are not linear and keep their derivative; what the other slots must not miss.
_CLAMPS = {"Clamp", "ClampMin"}
_UNDEFINED = {
    "Gelu": "GELU", "Silu": "SiLU", "Mish": "Mish", "Elu": "ELU", "Celu": "CELU", "LeakyRelu": "LeakyReLU",
    "PreluKernel": "PReLU", "RreluWithNoise": "RReLU", "RreluWithNoiseFunctional": "RReLU", "Softplus": "Softplus",
    "Hardtanh": "ReLU6 or Hardtanh", "Hardswish": "Hardswish", "Softshrink": "Softshrink", "Hardshrink": "Hardshrink",
    "LogSigmoid": "LogSigmoid", "Threshold": "Threshold",
}  # fmt: skip
_NATURAL = {
    "Sigmoid": "sigmoid", "Tanh": "tanh", "Hardsigmoid": "hard sigmoid", "Softmax": "softmax", "Glu": "GLU",
    "Erf": "erf", "Exp": "exp", "Abs": "abs", "Where": "where", "MaskedFill": "masked fill", "Maximum": "maximum",
    "Minimum": "minimum", "ScaledDotProduct": "attention",
}  # fmt: skip
_POOLS = {"MaxPool2DWithIndices", "AdaptiveMaxPool2D", "MaxPool3DWithIndices", "AdaptiveMaxPool3D", "MkldnnMaxPool2D"}
_LINEAR = {
    "Convolution", "Addmm", "Mm", "Bmm", "Linear", "MkldnnConvolution", "Addbmm", "Baddbmm", "ScaledDotProduct",
}  # fmt: skip
_OURS = {"_Relu": "relu", "_Pool": "max-pool", "_Linear": "linear"}


def verify(score: Tensor, rules: Rules, audit: Audit, extension: str | None = None) -> None:
    """Walk the graph of a score: complete the audit, set the extension's gates, and refuse what is not defined.

    Raises SpecError: no call was replaced; a rectifier was computed where it could not be replaced; an activation
    has no definition under the rule and the extension was not asked for.
    """
    if extension is not None and extension not in EXTENSIONS:
        raise SpecError(f"extension {extension!r} is unknown: expected {', '.join(EXTENSIONS)}")
    missed: Counter[str] = Counter()
    undefined: list[tuple[Node, str]] = []
    for node in _graph(score):
        name = _name(node)
        clamp = _clamps_at_zero(node) if name in _CLAMPS else ""
        if name in _OURS:
            audit.found[_OURS[name]] += 1
        elif rules.relu and (name == "Relu" or clamp == "relu" or _is_threshold(node, name) or _is_maximum(node, name)):
            missed["ReLU"] += 1
        elif rules.pool and name in _POOLS:
            missed["max pool"] += 1
        elif rules.linear and name in _LINEAR:
            missed["linear map"] += 1
        elif rules.relu and (name in _UNDEFINED or clamp == "clip"):
            undefined.append((node, _UNDEFINED.get(name, "clamp from 0 with a ceiling")))
        elif rules and (isinstance(node, torch.autograd.function.BackwardCFunction) or name == "CheckpointFunction"):
            undefined.append((node, f"the custom function {name}"))
        elif rules.relu and name in _NATURAL:
            audit.natural[_NATURAL[name]] += 1
    for what, number in missed.items():
        raise SpecError(
            f"{number} x {what} out of the rule's reach (compiled or scripted code, attention products): "
            "load the network as plain Python modules, or use a method without this rule"
        )
    if undefined and extension is None:
        names = Counter(what for _, what in undefined)
        raise SpecError(
            f"the rule {rules} has no definition at {', '.join(f'{n} x {w}' for w, n in names.items())}; "
            "the extension 'derivative' (--extension derivative) puts f'(x) in the place of (f > 0)"
        )
    for kind, rule in (("relu", rules.relu), ("linear", rules.linear)):  # a network may well have no max pool
        if rule and not audit.found[kind] and not (kind == "relu" and undefined):
            raise SpecError(
                f"no {kind} call lies between the image and the target, so {rule.name!r} would change nothing: "
                "use the plain gradient"
            )
    for node, what in undefined:
        audit.extended[what] += 1
        if rules.relu:
            _extend(node, rules.relu)


def _extend(node: Node, rule: ReluRule) -> None:
    """The rule at an activation without a definition: f'(x) stands for (f > 0), probed at ones."""
    unit = torch.ones(())
    backward_gate = float(rule.back(-unit, unit)) == 0
    forward_gate = float(rule.back(unit, 0 * unit)) == 0
    if not forward_gate:
        # Without the forward gate the value passes as it arrives, rectified.
        node.register_hook(lambda below, above: (above[0].clamp(min=0), *below[1:]))
    elif backward_gate:
        node.register_prehook(lambda above: tuple(None if g is None else g.clamp(min=0) for g in above))


def _name(node: Node) -> str:
    name = node.name().rstrip("0123456789").removesuffix("Backward")
    return "ScaledDotProduct" if name.startswith("ScaledDotProduct") else name


def _clamps_at_zero(node: Node) -> str:
    """relu: max(x, 0); clip: min(max(x, 0), m); nothing for other bounds, which are no activations."""
    if not is_zero(getattr(node, "_saved_min", None)):
        return ""
    return "relu" if getattr(node, "_saved_max", None) is None else "clip"


def _is_threshold(node: Node, name: str) -> bool:
    return name == "Threshold" and is_zero(getattr(node, "_saved_threshold", None))


def _is_maximum(node: Node, name: str) -> bool:
    return name == "Maximum" and any(is_zero(getattr(node, side, None)) for side in ("_saved_self", "_saved_other"))


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
