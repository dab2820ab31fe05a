"""Batch norms folded into the convolutions before them: the same function, fewer reads of memory."""

import copy
from collections.abc import Sequence

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(module: nn.Module, keep: Sequence[str], notes: list[str]) -> nn.Module:
    """A copy in which each BatchNorm2d that directly follows a Conv2d, where no layer in `keep` reads what lies
    between, is folded into it and replaced by an identity, so that every name stays.

    Where the network cannot be traced the module itself comes back; `notes` says what was done.
    """
    try:
        graph = fx.Tracer().trace(module)
    except Exception:  # tracing runs arbitrary forward code on proxies, which may fail in any way
        return module
    folded = copy.deepcopy(module)
    named = dict(folded.named_modules())
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
    count = 0
    for node in graph.nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        first, second = str(before.target), str(node.target)
        conv, norm = named[first], named[second]
        if type(conv) is not nn.Conv2d or not isinstance(norm, nn.BatchNorm2d) or not norm.track_running_stats:
            continue
        if first in keep or len(before.users) != 1 or calls[first] > 1 or calls[second] > 1:
            continue
        _replace(folded, first, fuse_conv_bn_eval(conv, norm))
        _replace(folded, second, nn.Identity())
        count += 1
    if not count:
        return module
    notes.append(f"{count} batch norms folded into their convolutions")
    return folded.eval().requires_grad_(False)


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, new)
