"""Grad-CAM and guided Grad-CAM: a layer's maps weighed by the mean gradient of the score."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dissect.attribution.gradients import METHODS, Attribution, Method, attribute
from dissect.attribution.network import OUTPUT, Network
from dissect.attribution.targets import Target, as_unit_maps
from dissect.errors import SpecError


def layer_gradient(network: Network, x: Tensor, target: Target, layer: str) -> tuple[Tensor, Tensor, Tensor]:
    """(maps, gradient of the score with respect to them, score): [N, U, h, w] twice and [N].

    Raises SpecError where the layer is not on the way to the target.
    """
    x = network.check_input(x)
    target.check(network, x)
    network.shape(layer, x)
    with torch.inference_mode(False), torch.enable_grad(), network.running():
        output, tap = network.forward(x.requires_grad_(), target.layer, tap=layer)
        score = target.score(output)
        gradient = None
        if tap is not None and score.requires_grad:
            (gradient,) = torch.autograd.grad(score.sum(), tap, allow_unused=True)
    if tap is None or gradient is None:
        raise SpecError(f"{target.title} does not depend on layer {layer!r}: choose a layer before the target's")
    return as_unit_maps(tap.detach(), layer), as_unit_maps(gradient, layer), score.detach()


def default_layer(network: Network, x: Tensor, target: Target) -> str:
    """The last layer with maps of more than one place that runs before the target's layer."""
    x = network.check_input(x)
    target.check(network, x)
    layers = network.map_layers(x)
    if target.layer != OUTPUT:
        order = list(network.probe(x).shapes)
        layers = [name for name in layers if order.index(name) < order.index(target.layer)]
    if not layers:
        raise SpecError(f"{network.name} has no layer with maps before {target.layer!r}: Grad-CAM needs one")
    return layers[-1]


def grad_cam(
    network: Network, x: Tensor, target: Target, layer: str | None = None, signed: bool = False
) -> Attribution:
    """Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2), enlarged bilinearly to the image.

    signed: keep negative places instead of the paper's ReLU; the record says which. values is the small map
    [N, 1, h', w'].
    """
    chosen = layer or default_layer(network, x, target)
    maps, gradient, score = layer_gradient(network, x, target, chosen)
    small = (maps * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True)
    if not signed:
        small = small.clamp(min=0)
    large = F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=False)
    method: dict[str, Any] = {"name": "grad-cam", "layer": chosen, "signed": signed}
    notes = () if layer else (f"layer {chosen} was taken: the last one with maps",)
    return Attribution(method, target.title, small, large[:, 0], score, None, notes)


def guided_grad_cam(
    network: Network, x: Tensor, target: Target, layer: str | None = None, method: Method | None = None
) -> Attribution:
    """Guided backprop (or another gradient method) x Grad-CAM, place by place."""
    fine_method = method or METHODS["guided"]
    coarse = grad_cam(network, x, target, layer)
    fine = attribute(network, x, target, fine_method)
    values = fine.values * coarse.map[:, None]
    record = {"name": "guided-grad-cam", "layer": coarse.method["layer"], "fine": fine.method}
    return Attribution(
        record, target.title, values, fine_method.readout(values), fine.score, fine.audit, coarse.notes + fine.notes
    )
