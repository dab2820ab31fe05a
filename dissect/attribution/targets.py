"""What is attributed: one number per image, read at a layer. A class, a unit, a direction, a concept.

All four are one shape: a vector over the units of a layer and a way to read one number from a map.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dissect.attribution.network import OUTPUT, Network
from dissect.errors import SpecError

REDUCTIONS = ("max", "sum", "mean")


def as_unit_maps(output: Tensor, layer: str) -> Tensor:
    """The output of a layer as [N, U, h, w], differentiable; the shapes of `dissect.activations.as_maps`."""
    if output.dim() == 4:
        _, a, b, c = output.shape
        return output.permute(0, 3, 1, 2) if a == b != c else output
    if output.dim() == 2:
        return output[:, :, None, None]
    if output.dim() == 3:
        tokens = output.shape[1]
        side = math.isqrt(tokens)
        extra = tokens - side * side
        if extra in (0, 1, 2, 5) and side >= 2:
            return output[:, extra:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    raise SpecError(
        f"layer {layer!r} has shape {list(output.shape)}: expected [N, U, h, w], [N, U] or tokens [N, T, U]"
    )


@dataclass(frozen=True)
class Target:
    """units and weights: the vector; reduce: max, sum or mean over the map, or (row, column).

    With `probability` the softmax over the units of the layer is taken first.
    """

    title: str
    layer: str = OUTPUT
    units: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    reduce: str | tuple[int, int] = "max"
    probability: bool = False

    def score(self, output: Tensor) -> Tensor:
        """What the layer returned -> [N].

        The maximum is one place (the first among equals), so that its gradient starts from one activation.
        """
        maps = as_unit_maps(output, self.layer)
        if self.probability:
            maps = maps.softmax(1)
        chosen = maps[:, list(self.units)]
        weights = torch.tensor(self.weights, dtype=maps.dtype, device=maps.device)
        line = (chosen * weights.view(1, -1, 1, 1)).sum(1).flatten(1)
        if isinstance(self.reduce, tuple):
            return line[:, self.reduce[0] * maps.shape[3] + self.reduce[1]]
        if self.reduce == "max":
            return line.max(1).values
        return line.sum(1) if self.reduce == "sum" else line.mean(1)

    def check(self, network: Network, x: Tensor) -> None:
        """Raises SpecError where the layer, a unit or the place does not exist."""
        shape = network.shape(self.layer, x)
        maps = as_unit_maps(torch.empty(1, *shape, device="meta"), self.layer)
        units, height, width = maps.shape[1:]
        wrong = [u for u in self.units if not 0 <= u < units]
        noun = "class" if self.layer == OUTPUT and height * width == 1 else "unit"
        if wrong:
            raise SpecError(
                f"{noun} {wrong[0]} is out of range: {self.layer!r} of {network.name} has "
                f"{'classes' if noun == 'class' else 'units'} 0 to {units - 1}"
            )
        if isinstance(self.reduce, tuple):
            row, column = self.reduce
            if not (0 <= row < height and 0 <= column < width):
                raise SpecError(f"place ({row}, {column}) lies outside the map of {self.layer!r}, {height} x {width}")
        elif self.reduce not in REDUCTIONS:
            raise SpecError(f"reduction {self.reduce!r} is unknown: expected {', '.join(REDUCTIONS)} or (row, column)")


def class_target(number: int, probability: bool = False) -> Target:
    """A class of the network's output: its logit, or its probability."""
    kind = "probability" if probability else "logit"
    return Target(f"class {number} ({kind})", OUTPUT, (number,), (1.0,), "max", probability)


def classes_target(numbers: Sequence[int], probability: bool = False) -> Target:
    """Several classes that mean one thing: the sum of their logits, or of their probabilities."""
    units = tuple(sorted(set(numbers)))
    if len(units) == 1:
        return class_target(units[0], probability)
    kind = "probabilities" if probability else "logits"
    title = f"classes {', '.join(map(str, units))} (sum of {kind})"
    return Target(title, OUTPUT, units, (1.0,) * len(units), "max", probability)


def unit_target(layer: str, unit: int, reduce: str | tuple[int, int] = "max") -> Target:
    """One unit of a layer, at its strongest place unless told otherwise."""
    return Target(f"unit {unit} of {layer}", layer, (unit,), (1.0,), reduce)


def direction_target(
    layer: str, vector: Sequence[float], reduce: str | tuple[int, int] = "max", title: str = ""
) -> Target:
    """A direction in the space of a layer's units, scaled to length 1. Raises SpecError for a zero vector."""
    values = torch.as_tensor(vector, dtype=torch.float64).flatten()
    length = float(values.norm())
    if not math.isfinite(length) or length == 0:
        raise SpecError(f"direction in {layer!r}: its length is {length}, expected a finite vector that is not zero")
    weights = tuple(float(v) for v in values / length)
    return Target(title or f"direction in {layer}", layer, tuple(range(len(weights))), weights, reduce)


def concept_target(layer: str, concept: str, detectors: Sequence[int], reduce: str | tuple[int, int] = "max") -> Target:
    """A concept of a dissected layer: the sum of its detectors."""
    if not detectors:
        raise SpecError(
            f"no unit of {layer!r} detects {concept!r}, so it has no target there: choose another layer or concept"
        )
    units = tuple(sorted(set(detectors)))
    return Target(f"{concept} in {layer} ({len(units)} detectors)", layer, units, (1.0,) * len(units), reduce)
