"""ReLUs taken into the convolutions before them, on CPUs: the same values, one read and write of memory less.

oneDNN applies a ReLU while it writes what a convolution gives, and turns NaN into 0 as it does so, where a ReLU of its
own passes NaN on. So a pair is fused only where no NaN can arise: where the weights are finite and no picture can drive
any value up to there to where float32 overflows.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType

from torch import Tensor, fx, nn

from dissect import ops
from dissect.models.bounds import bounds
from dissect.models.chains import Chains, trace

LIMIT = 1e30  # far below the largest float32 and bfloat16, 3.4e38: rounding and partial sums may add to a bound

# As oneDNN's operator takes them: name and scalars.
_AFTER: Mapping[type[nn.Module], tuple[str, tuple[float, ...]]] = {
    nn.ReLU: ("relu", ()),
    nn.ReLU6: ("hardtanh", (0.0, 6.0)),
}


class Fusing:
    """Context in which pairs of Conv2d and ReLU or ReLU6 of a network in eval mode work as one.

    keep: layers that are read; what they return stays as it was, to the bit but for how oneDNN orders sums. largest:
    the largest |x| of the input. Every module keeps its name and can be hooked. On exit all is as it was.
    """

    def __init__(self, module: nn.Module, keep: Sequence[str], largest: float) -> None:
        self._module = module
        self.pairs = _pairs(module, keep, largest)
        self._before: dict[str, nn.Module] = {}

    def __enter__(self) -> "Fusing":
        named = dict(self._module.named_modules())
        for first, second in self.pairs:
            conv, relu = named[first], named[second]
            assert isinstance(conv, nn.Conv2d)
            self._put(first, _Fused(conv, relu))
            if second not in self._before:  # one ReLU may follow several convolutions
                self._put(second, _Skipped(relu))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, module in self._before.items():
            self._module.set_submodule(name, module)
        self._before = {}

    def _put(self, name: str, module: nn.Module) -> None:
        self._before[name] = self._module.get_submodule(name)
        self._module.set_submodule(name, module)


def _pairs(module: nn.Module, keep: Sequence[str], largest: float) -> list[tuple[str, str]]:
    """Names of convolutions and of the ReLUs to fuse into them; none where this torch or processor cannot."""
    if not all(ops.fuses(dtype) for dtype in {value.dtype for value in module.parameters()}):
        return []
    try:
        graph = trace(module)
    except Exception:  # what cannot be traced stays as it is
        return []
    chains = Chains(module, graph, keep)
    found = {conv: relu for conv, relu in chains.after_convolutions() if _fit(chains, conv, relu)}
    safe = []
    for node, reach in bounds(graph, chains.named, largest):
        relu = found.pop(node, None)
        if relu is not None and reach < LIMIT:
            safe.append((str(node.target), str(relu.target)))
        if not found:
            break
    return safe


def _fit(chains: Chains, conv: fx.Node, relu: fx.Node) -> bool:
    """Whether oneDNN has what two modules do together."""
    before, after = chains.named[str(conv.target)], chains.named[str(relu.target)]
    assert isinstance(before, nn.Conv2d)
    plain = isinstance(before.padding, tuple) and before.padding_mode == "zeros"
    return plain and type(after) in _AFTER and not chains.hooked(str(relu.target))


class _Fused(nn.Module):
    """A convolution with what follows. Its weights are laid out anew, once, as oneDNN wants them."""

    def __init__(self, conv: nn.Conv2d, relu: nn.Module) -> None:
        super().__init__()
        self._conv, self._after = [conv], _AFTER[type(relu)]  # a list: not a child, names stay
        self._weight: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self._weight is None:
            self._weight = ops.fused_weight(self._conv[0], x.shape)
        y = ops.fused_convolution(x, self._conv[0], self._weight, *self._after)
        y.rectified = True  # type: ignore[attr-defined]
        return y


class _Skipped(nn.Module):
    """A ReLU that lets pass what a fused convolution has just made."""

    def __init__(self, relu: nn.Module) -> None:
        super().__init__()
        self._relu = [relu]

    def forward(self, x: Tensor) -> Tensor:
        if getattr(x, "rectified", False):
            return x
        y: Tensor = self._relu[0](x)
        return y
