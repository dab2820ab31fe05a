"""One shape for every method that goes back through the network: rules, points, a weighing and a read-out in slots.

attribute(network, x, class_target(281), METHODS["guided"])
replace(METHODS["deconvnet"], pool=SWITCHES, readout=maximum)     # a new method is data
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dissect.attribution.audit import Audit
from dissect.attribution.network import Network
from dissect.attribution.points import Points, around, at_image, on_line
from dissect.attribution.readouts import Readout, maximum, norm, total
from dissect.attribution.rewiring import Rewiring
from dissect.attribution.rules import (
    DECONVNET,
    EXCITATION,
    GUIDED,
    SWITCHES,
    LinearRule,
    PoolRule,
    ReluRule,
    Rules,
    epsilon_rule,
)
from dissect.attribution.targets import Target
from dissect.attribution.watching import Watch, nobody
from dissect.attribution.witness import verify
from dissect.errors import SpecError
from dissect.suggest import suggestion

Weigh = Callable[[Tensor, Tensor, Tensor], Tensor]  # (gradient, image, baseline) -> values


def as_is(gradient: Tensor, x: Tensor, baseline: Tensor) -> Tensor:
    """The gradient itself."""
    return gradient


def times_image(gradient: Tensor, x: Tensor, baseline: Tensor) -> Tensor:
    """Gradient x input: exact contributions of a linear network without biases."""
    return gradient * x


def times_way(gradient: Tensor, x: Tensor, baseline: Tensor) -> Tensor:
    """Gradient x (image - baseline): what integrated gradients adds up."""
    return gradient * (x - baseline)


@dataclass(frozen=True)
class Method:
    """A gradient method as data. An empty rule slot means the plain derivative."""

    name: str
    relu: ReluRule | None = None
    pool: PoolRule | None = None
    linear: LinearRule | None = None
    points: Points = at_image
    weigh: Weigh = as_is
    readout: Readout = norm
    settings: dict[str, Any] = field(default_factory=dict)  # what the points were made of, for the records
    extension: str | None = None

    def json(self) -> dict[str, Any]:
        """What was in the slots."""
        return {
            "name": self.name,
            "relu": self.relu.name if self.relu else None,
            "pool": self.pool.name if self.pool else None,
            "linear": self.linear.name if self.linear else None,
            "weigh": self.weigh.__name__,
            "readout": self.readout.__name__,
            "extension": self.extension,
            **self.settings,
        }


@dataclass(frozen=True)
class Attribution:
    """values [N, C, h, w] per colour plane (or [N, 1, h, w]), map [N, h, w], the target's score [N], and the books."""

    method: dict[str, Any]
    target: str
    values: Tensor
    map: Tensor
    score: Tensor
    audit: Audit | None = None
    notes: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method("gradient"),
        Method("gradient-max", readout=maximum),
        Method("deconvnet", relu=DECONVNET),
        Method("deconvnet-switches", relu=DECONVNET, pool=SWITCHES),
        Method("guided", relu=GUIDED),
        Method("gradient-x-input", weigh=times_image, readout=total),
        Method("integrated-gradients", points=on_line(32), weigh=times_way, readout=total, settings={"steps": 32}),
        Method("smoothgrad", points=around(25), readout=maximum, settings={"draws": 25, "spread": 0.15, "seed": 0}),
        Method("lrp-epsilon", linear=epsilon_rule(), weigh=times_image, readout=total),
        Method("excitation", linear=EXCITATION, weigh=times_image, readout=total),
    )
}


def integrated_gradients(steps: int) -> Method:
    """Integrated gradients with another number of steps."""
    return replace(METHODS["integrated-gradients"], points=on_line(steps), settings={"steps": steps})


def smoothgrad(draws: int, spread: float = 0.15, seed: int = 0, base: Method | None = None) -> Method:
    """SmoothGrad, over the plain gradient or any other method."""
    method = base or METHODS["smoothgrad"]
    name = "smoothgrad" if base is None else f"smooth {base.name}"
    settings = {"draws": draws, "spread": spread, "seed": seed}
    return replace(method, name=name, points=around(draws, spread, seed), settings=settings)


def attribute(
    network: Network,
    x: Tensor,
    target: Target,
    method: Method | str = "gradient",
    baseline: Tensor | None = None,
    watch: Watch = nobody,
) -> Attribution:
    """Attribution of the target's score to the image x [N, C, h, w] (as the network takes it).

    baseline: where a way begins, [C, h, w] or [N, C, h, w]; zero, which is the mean colour, unless given. watch: told
    the passes that are done.
    Raises SpecError for an unknown method, a wrong target, input without a gradient, an undefined activation, or a
    rule that would replace nothing.
    """
    method = find(method)
    x = network.check_input(x)
    start = torch.zeros_like(x) if baseline is None else network.check_input(baseline.expand_as(x))
    target.check(network, x)
    gradient = torch.zeros_like(x)
    audit: Audit | None = None
    number, total = 0, int(method.settings.get("steps", method.settings.get("draws", 1)))
    for point in method.points(x, start):
        step, step_audit, score = _gradient(network, point, target, method)
        gradient += step
        audit, number = audit or step_audit, number + 1
        watch(number, total)
    gradient /= number
    if number > 1:
        score = scores(network, x, target)
    values = method.weigh(gradient, x, start)
    extra: dict[str, Any] = {}
    notes = list(audit.lines()) if audit else []
    if method.weigh is times_way:
        below = scores(network, start, target)
        gap = values.flatten(1).sum(1) - (score - below)
        extra["completeness_gap"] = gap
        notes.append(f"contributions miss the difference of the scores by at most {float(gap.abs().max()):.3g}")
    for i in (gradient.flatten(1) == 0).all(1).nonzero().flatten().tolist():
        notes.append(f"image {i}: nothing arrives at the image (the gradient is zero everywhere)")
    return Attribution(method.json(), target.title, values, method.readout(values), score, audit, tuple(notes), extra)


def find(method: Method | str) -> Method:
    """A method by name. Raises SpecError."""
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise SpecError(f"method {method!r} is unknown{suggestion(method, tuple(METHODS))}")
    return METHODS[method]


def _gradient(network: Network, x: Tensor, target: Target, method: Method) -> tuple[Tensor, Audit, Tensor]:
    """Gradient of the score by the rules of the method at one batch of images, with the audit of the pass."""
    with torch.inference_mode(False), torch.enable_grad(), network.running():
        leaf = x.detach().clone().requires_grad_()
        rules = Rules(method.relu, method.pool, method.linear)
        rewiring = Rewiring(network.module, rules)
        with rewiring.applied():
            output, _ = network.forward(leaf, target.layer)
        score = target.score(output)
        if not score.requires_grad:
            raise SpecError(f"no gradient path leads from {target.title} of {network.name} to the image")
        verify(score, rules, rewiring.audit, method.extension)
        (gradient,) = torch.autograd.grad(score.sum(), leaf, allow_unused=True)
    if gradient is None:
        raise SpecError(f"no gradient path leads from {target.title} of {network.name} to the image")
    if not bool(torch.isfinite(gradient).all()):
        raise SpecError(f"the gradient of {target.title} holds NaN or Inf")
    return gradient, rewiring.audit, score.detach()


def scores(network: Network, x: Tensor, target: Target) -> Tensor:
    """The target's score [N], without gradients."""
    with torch.no_grad(), network.running():
        return target.score(network.forward(x, target.layer)[0])
