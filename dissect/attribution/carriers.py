"""Which labelled units carried this decision: contributions of a layer's units, joined with what the dissection calls
them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dissect.attribution.cam import layer_gradient
from dissect.attribution.network import Network
from dissect.attribution.targets import Target, as_unit_maps
from dissect.errors import SpecError
from dissect.store import Store
from dissect.suggest import suggestion

WAYS = ("gradient", "path", "ablation")


@dataclass(frozen=True)
class UnitLabel:
    """What a dissection says of a unit; concept None where it has none."""

    concept: str | None
    category: str | None
    iou: float
    detector: bool


@dataclass(frozen=True)
class Contributions:
    """values [N, U]: what each unit gave to the score; maps [N, U, h, w]: where (they add up to the values).

    gap [N]: for `path`, what the values miss of score - score with the layer at zero.
    """

    layer: str
    target: str
    way: str
    values: Tensor
    maps: Tensor
    score: Tensor
    gap: Tensor | None = None


@dataclass(frozen=True)
class Carrier:
    """One unit's part in one decision."""

    unit: int
    contribution: float
    share: float  # of the sum of all magnitudes
    label: UnitLabel | None


def contributions(
    network: Network, x: Tensor, target: Target, layer: str, way: str = "path", steps: int = 16
) -> Contributions:
    """Contributions of a layer's units to the target's score for x [N, C, H, W].

    gradient: activation x gradient. path: the same, averaged on the way from a silent layer to this one, which adds up
    to the whole score difference (integrated gradients on the layer). ablation: the drop when a unit is silenced, one
    forward pass each; its maps show the unit's share by activation.
    Raises SpecError where the layer is not on the way to the target.
    """
    if way not in WAYS:
        raise SpecError(f"way {way!r} is unknown: expected {', '.join(WAYS)}")
    x = network.check_input(x)
    maps, gradient, score = layer_gradient(network, x, target, layer)
    gap = None
    if way == "gradient":
        parts = maps * gradient
    elif way == "path":
        mean = torch.zeros_like(maps)
        for step in range(steps):
            mean += _scaled(network, x, target, layer, (step + 0.5) / steps)[1]
        parts = maps * (mean / steps)
        silent = _scaled(network, x, target, layer, 0.0)[0]
        gap = parts.flatten(1).sum(1) - (score - silent)
    else:
        drops = torch.stack([score - _without(network, x, target, layer, unit) for unit in range(maps.shape[1])], 1)
        weight = maps.abs()
        whole = weight.sum((2, 3), keepdim=True)
        even = torch.full_like(weight, 1 / (maps.shape[2] * maps.shape[3]))
        parts = drops[:, :, None, None] * torch.where(
            whole > 0, weight / whole.clamp(min=torch.finfo(maps.dtype).tiny), even
        )
    return Contributions(layer, target.title, way, parts.sum((2, 3)), parts, score, gap)


def _scaled(network: Network, x: Tensor, target: Target, layer: str, factor: float) -> tuple[Tensor, Tensor]:
    """(score, gradient with respect to the layer) with the layer's output scaled."""
    with torch.inference_mode(False), torch.enable_grad(), network.running():
        output, tap = network.forward(
            x.detach().clone().requires_grad_(),
            target.layer,
            tap=layer,
            swap=lambda a: (a.detach() * factor).requires_grad_(),
        )
        score = target.score(output)
        assert tap is not None
        (gradient,) = torch.autograd.grad(score.sum(), tap)
    return score.detach(), as_unit_maps(gradient, layer)


def _without(network: Network, x: Tensor, target: Target, layer: str, unit: int) -> Tensor:
    """The score with one unit silenced."""

    def silence(output: Tensor) -> Tensor:
        changed = output.clone()
        as_unit_maps(changed, layer)[:, unit] = 0
        return changed

    with torch.no_grad(), network.running():
        return target.score(network.forward(x, target.layer, tap=layer, swap=silence)[0])


def unit_labels(store: Store, run: str, layer: str) -> list[UnitLabel]:
    """Labels of a dissected layer's units, in order. Raises SpecError for an unknown run or layer."""
    record = store.get_run(run)
    stored = store.layer(record.id, layer)
    concepts = {concept.number: concept for concept in store.concepts(record.id)}
    categories = {category.index: category.name for category in store.categories(record.id)}
    table = store.units(stored)
    labels = []
    for number, iou in zip(table.label.tolist(), table.iou.tolist()):
        concept = concepts.get(number)
        if concept is None:
            labels.append(UnitLabel(None, None, 0.0, False))
        else:
            labels.append(UnitLabel(concept.name, categories.get(concept.category), iou, iou > stored.cut))
    return labels


def detectors(labels: Sequence[UnitLabel], concept: str) -> list[int]:
    """The units that detect a concept. Raises SpecError where there are none, with near names of those that are."""
    found = [unit for unit, label in enumerate(labels) if label.concept == concept and label.detector]
    if not found:
        known = sorted({label.concept for label in labels if label.detector and label.concept})
        raise SpecError(f"no unit detects {concept!r}{suggestion(concept, known)}")
    return found


def carriers(
    found: Contributions, labels: Sequence[UnitLabel] | None = None, top: int = 10, image: int = 0
) -> list[Carrier]:
    """The units with the largest contributions by magnitude to one image's score. Raises SpecError where labels do
    not fit."""
    values = found.values[image]
    if labels is not None and len(labels) != len(values):
        raise SpecError(
            f"layer {found.layer!r} has {len(values)} units here and {len(labels)} in the dissection: another network"
        )
    whole = float(values.abs().sum()) or 1.0
    order = values.abs().argsort(descending=True, stable=True)[:top]
    return [
        Carrier(u, float(values[u]), float(values[u].abs()) / whole, labels[u] if labels else None)
        for u in order.tolist()
    ]


def concept_sums(found: Contributions, labels: Sequence[UnitLabel], image: int = 0) -> list[dict[str, Any]]:
    """What the detectors of each concept gave together, largest magnitude first; units without a label stand under
    None."""
    carriers(found, labels, 1, image)  # refuses labels of another network
    sums: dict[tuple[str | None, str | None], list[float]] = {}
    for unit, label in enumerate(labels):
        key = (label.concept, label.category) if label.detector else (None, None)
        sums.setdefault(key, []).append(float(found.values[image, unit]))
    rows = [{"concept": c, "category": k, "units": len(v), "contribution": sum(v)} for (c, k), v in sums.items()]
    return sorted(rows, key=lambda row: -abs(float(str(row["contribution"]))))
