"""Every method that answers with a map, by name, with the slots that a command line fills."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from dissect.attribution import cam, gradients
from dissect.attribution.gradients import METHODS, Attribution
from dissect.attribution.network import Network
from dissect.attribution.occlusion.occlude import occlude, occlude_approximately
from dissect.attribution.readouts import READOUTS
from dissect.attribution.rise import rise
from dissect.attribution.targets import Target
from dissect.attribution.watching import Watch, nobody
from dissect.errors import SpecError
from dissect.suggest import suggestion

MAPS = (*METHODS, "grad-cam", "guided-grad-cam", "occlusion", "rise")

Answerer = Callable[[Network, Tensor, Target], Attribution]
Mapper = Callable[[Network, Tensor, Target], Tensor]


@dataclass(frozen=True)
class Slots:
    """What may be chosen beside the method; each method takes what concerns it."""

    readout: str | None = None
    extension: str | None = None
    steps: int = 32
    draws: int = 25
    spread: float = 0.15
    masks: int = 2000
    layer: str | None = None
    signed: bool = False
    patch: int = 16
    stride: int = 8
    occluder: str = "grey"
    value: str = "drop"
    engine: str = "auto"
    approximate: float | None = None
    batch: int = 64
    seed: int = 0


def find(name: str, slots: Slots | None = None, watch: Watch = nobody) -> Answerer:
    """The method `name` with its slots filled. Raises SpecError for an unknown one."""
    s = slots or Slots()
    if name not in MAPS:
        raise SpecError(f"method {name!r} is unknown{suggestion(name, MAPS)}")
    if name == "occlusion":
        hiding: dict[str, Any] = {
            "patch": s.patch, "stride": s.stride, "occluder": s.occluder, "value": s.value, "batch": s.batch,
            "watch": watch,
        }  # fmt: skip
        if s.approximate is not None:
            cap = s.approximate
            return lambda n, x, t: occlude_approximately(n, x, t, cap=cap, seed=s.seed, **hiding)
        return lambda n, x, t: occlude(n, x, t, engine=s.engine, **hiding)
    if name == "rise":
        return lambda n, x, t: rise(n, x, t, masks=s.masks, seed=s.seed, batch=s.batch, watch=watch)
    if name == "grad-cam":
        return lambda n, x, t: cam.grad_cam(n, x, t, s.layer, s.signed)
    method = METHODS["guided" if name == "guided-grad-cam" else name]
    if name == "integrated-gradients":
        method = gradients.integrated_gradients(s.steps)
    elif name == "smoothgrad":
        method = gradients.smoothgrad(s.draws, s.spread, s.seed)
    method = replace(method, extension=s.extension)
    if s.readout:
        method = replace(method, readout=READOUTS[s.readout])
    if name == "guided-grad-cam":
        return lambda n, x, t: cam.guided_grad_cam(n, x, t, s.layer, method)
    return lambda n, x, t: gradients.attribute(n, x, t, method, watch=watch)


def mapper(name: str, slots: Slots | None = None) -> Mapper:
    """The method as the judges take it: only the map [N, h, w]."""
    answer = find(name, slots)
    return lambda network, x, target: answer(network, x, target).map
