"""ReLUs other than they are, while a pass runs: leaking, rounded off, or only looked at. The module is not touched."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# e(u) = c0 + c1 u^2 + c2 u^4 + c3 u^6 meets |u| / 2 at 1 with its first two derivatives, and has its integral.
ROUND = 5 / 64, 45 / 64, -25 / 64, 7 / 64


class Relus(TorchFunctionMode, ABC):
    """Within it every ReLU, however spelt, is `relu` of this; ReLU6 keeps its top."""

    RELUS = frozenset({F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})
    CLIPPED = frozenset({F.hardtanh, F.hardtanh_, F.relu6})

    @abstractmethod
    def relu(self, x: Tensor, inplace: bool) -> Tensor: ...

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.RELUS:
            inplace = func.__name__.endswith("_") or kwargs.get("inplace", False) or (len(args) > 1 and args[1] is True)
            return self.relu(args[0], bool(inplace))
        if func in self.CLIPPED:
            low = 0.0 if func is F.relu6 else kwargs.get("min_val", args[1] if len(args) > 1 else -1.0)
            high = 6.0 if func is F.relu6 else kwargs.get("max_val", args[2] if len(args) > 2 else 1.0)
            if low == 0:
                return self.relu(args[0], False).clamp(max=high)
        return func(*args, **kwargs)


class LeakyRelus(Relus):
    """Slope s below 0 (natural pre-images use 0.05): a unit that nothing has excited yet then passes a gradient."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def relu(self, x: Tensor, inplace: bool) -> Tensor:
        return F.leaky_relu(x, self.slope, inplace=inplace)


class ReluSpreads(Relus):
    """Notes the standard deviation of what comes to each ReLU, call by call and row by row: `spreads`, each [B]."""

    def __init__(self) -> None:
        super().__init__()
        self.spreads: list[Tensor] = []

    def relu(self, x: Tensor, inplace: bool) -> Tensor:
        self.spreads.append(x.detach().std(tuple(range(1, x.dim())), correction=0))
        return F.relu(x, inplace=inplace)


class RoundedRelus(Relus):
    """The i-th ReLU of a pass has no edge but a bend over -w to w, w = widths[i] [B] of each row (see `rounded`)."""

    def __init__(self, widths: Sequence[Tensor]) -> None:
        super().__init__()
        self._widths = iter(widths)

    def relu(self, x: Tensor, inplace: bool) -> Tensor:
        width = next(self._widths)
        return rounded(x, width.view(-1, *[1] * (x.dim() - 1)))


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, width: Tensor) -> Tensor:
        c0, c1, c2, c3 = ROUND
        u = (x / width).clamp_(-1, 1)
        ctx.save_for_backward(u)
        square = u * u
        bend = square.mul(c3).add_(c2).mul_(square).add_(c1).mul_(square).add_(c0)
        # Outside the bend u is -1 or 1, and e(u) + u / 2 is 0 or 1: what is left is relu(x).
        return bend.add_(u, alpha=0.5).mul_(width).add_(F.relu(x - u * width))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        _, c1, c2, c3 = ROUND
        (u,) = ctx.saved_tensors
        square = u * u
        slope = square.mul(6 * c3).add_(4 * c2).mul_(square).add_(2 * c1).mul_(u).add_(0.5)
        return slope.mul_(gradients[0]), None


def rounded(x: Tensor, width: Tensor) -> Tensor:
    """relu(x) with its edge rounded off over |x| < width: w (e(x / w) + x / 2w), e an even polynomial.

    Twice continuously differentiable, and exact on average over inputs spread evenly across the bend: what is too high
    in its middle is made up for by what is too low at its ends. So a network of such ReLUs says much the same on the
    whole. Softplus, which is too high everywhere, shifts every layer. width > 0 broadcasts to x.
    """
    return _Rounded.apply(x, width.clamp(min=torch.finfo(x.dtype).tiny))
