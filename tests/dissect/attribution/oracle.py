"""A second implementation of the ReLU rules that shares nothing with the product's: hooks on the nodes of the graph.

Whatever computed a ReLU, autograd holds one node for it; its hook sees what arrives and what leaves.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def nodes(score: Tensor) -> Iterator[object]:
    seen, waiting = set(), [score.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [below for below, _ in node.next_functions]


def is_relu(node: object) -> bool:
    name = node.name()  # type: ignore[attr-defined]
    if name.startswith(("ReluBackward", "ThresholdBackward", "MaximumBackward")):
        return True
    return name.startswith("Clamp") and getattr(node, "_saved_min", None) == 0


def gradient(module: nn.Module, x: Tensor, unit: int, rule: str) -> tuple[Tensor, int]:
    """(R at the image, number of ReLUs) for output `unit` of a plain module, under backprop, deconvnet or guided."""
    leaf = x.clone().requires_grad_()
    score = module(leaf.clone())[:, unit].sum()
    count = 0
    for node in nodes(score):
        if not is_relu(node):
            continue
        count += 1
        if rule == "guided":
            node.register_prehook(lambda above: tuple(g.clamp(min=0) for g in above))  # type: ignore[attr-defined]
        if rule == "deconvnet":
            if node.name().startswith("Maximum"):  # type: ignore[attr-defined]
                node.register_hook(
                    lambda below, above: tuple(None if b is None else above[0].clamp(min=0) for b in below)
                )  # type: ignore[attr-defined]
            else:
                node.register_hook(lambda below, above: (above[0].clamp(min=0), *below[1:]))  # type: ignore[attr-defined]
    return torch.autograd.grad(score, leaf)[0], count
