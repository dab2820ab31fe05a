"""Batch norms folded into the convolutions before them: the same function, fewer reads of memory."""

import copy
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dissect.models.chains import Chains, trace


def fold_batch_norms(module: nn.Module, keep: Sequence[str], notes: list[str]) -> nn.Module:
    """A copy in which each BatchNorm2d that directly follows a Conv2d is folded into it and replaced by an identity, so
    that every name stays and can be hooked.

    keep: layers that will be read; what they return stays as it was, to the bit where they are themselves the
    convolution or the norm. Left alone is also whatever is used twice, has hooks, or passes its output to others.
    Where the network cannot be traced, or nothing can be folded, the module itself comes back. `notes` says what was
    done.
    """
    try:
        graph = trace(module)
    except Exception as error:  # tracing runs arbitrary forward code on proxies, which may fail in any way
        if any(type(child) is nn.BatchNorm2d for child in module.modules()):
            why = str(error).partition("\n")[0][:100]
            notes.append(f"batch norms are not folded, as the network cannot be traced ({type(error).__name__}: {why})")
        return module
    pairs = _pairs(Chains(module, graph, keep))
    if not pairs:
        return module
    folded = copy.deepcopy(module)
    for first, second in pairs:
        conv, norm = folded.get_submodule(first), folded.get_submodule(second)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        _fold(conv, norm)
        folded.set_submodule(second, nn.Identity())
    notes.append(f"{len(pairs)} batch norms folded into their convolutions")
    return folded.eval().requires_grad_(False)


def _pairs(chains: Chains) -> list[tuple[str, str]]:
    """Names of convolutions and the norms to fold into them."""
    named = chains.named
    shared = Counter(id(value) for child in named.values() for value in child._parameters.values() if value is not None)
    found = []
    for conv, norm in chains.after_convolutions():
        first, second = str(conv.target), str(norm.target)
        follows = named[second]
        if type(follows) is not nn.BatchNorm2d or follows.running_mean is None or not chains.alone(second):
            continue
        if all(shared[id(value)] == 1 for name in (first, second) for value in named[name].parameters()):
            found.append((first, second))
    return found


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """In place: y = (conv(x) - mean) / sqrt(var + eps) * gain + shift as one convolution; in float64, rounded once."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None

    def wide(value: Tensor | None, default: float) -> Tensor:
        return torch.full_like(mean, default, dtype=torch.float64) if value is None else value.double()

    scale = wide(norm.weight, 1) / (variance.double() + norm.eps).sqrt()
    bias = (wide(conv.bias, 0) - mean.double()) * scale + wide(norm.bias, 0)
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
