"""Targets by their names on a command line."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dissect.attribution.network import OUTPUT, Network
from dissect.attribution.targets import (
    Target,
    class_target,
    classes_target,
    concept_target,
    direction_target,
    unit_target,
)
from dissect.errors import SpecError

FORMS = "top, class:N (or N), class:N+N+… for their sum, unit:LAYER:N, direction:LAYER:FILE.npy, concept:LAYER:NAME"


def parse_target(
    text: str,
    network: Network,
    x: Tensor,
    probability: bool = False,
    reduce: str = "max",
    detectors: Callable[[str, str], Sequence[int]] | None = None,
) -> Target:
    """`top` is the class that the network gives x [1, C, H, W]; detectors(layer, concept) answers for concepts.

    Raises SpecError for other forms, files that hold no vector, concepts without a dissection.
    """
    kind, _, rest = text.partition(":")
    if text == "top":
        with torch.no_grad(), network.running():
            output = network.forward(network.check_input(x), OUTPUT)[0]
        if output.dim() != 2:
            raise SpecError(
                f"--target top: {network.name} returns {list(output.shape[1:])} per image, not one score a class"
            )
        return class_target(int(output[0].argmax()), probability)
    if text.replace("+", "").isdigit():
        kind, rest = "class", text
    if kind == "class" and all(number.isdigit() for number in rest.split("+")):
        return classes_target([int(number) for number in rest.split("+")], probability)
    layer, _, name = rest.rpartition(":")
    if kind == "unit" and layer and name.isdigit():
        return unit_target(layer, int(name), reduce)
    if kind == "direction" and layer:
        path = Path(name)
        try:
            vector = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise SpecError(f"--target {text}: {path} is no array file ({error})") from None
        return direction_target(
            layer, vector.astype(np.float64).ravel().tolist(), reduce, f"direction {path.name} in {layer}"
        )
    if kind == "concept" and layer:
        if detectors is None:
            raise SpecError(f"--target {text}: a concept needs the run that found its detectors, add --run RUN")
        return concept_target(layer, name, detectors(layer, name), reduce)
    raise SpecError(f"--target {text!r} is unknown: expected {FORMS}")
