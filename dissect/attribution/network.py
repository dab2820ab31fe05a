"""A network seen from its input: checked images in, one score out, nothing left on the module.

Every method here talks to a `Network`; it holds no hook, mode or flag between calls.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dissect.errors import SpecError
from dissect.suggest import suggestion

OUTPUT = "output"  # the name of what the network returns

# Two passes over one image may differ by this share of the largest value (atomic sums on a GPU), not more.
_REPEATABLE = 1e-4


class Preprocessing(Protocol):
    """What a loaded model says of its input: mean and standard deviation on the 0..1 scale."""

    @property
    def mean(self) -> Sequence[float]: ...
    @property
    def std(self) -> Sequence[float]: ...


class Stop(Exception):
    """Ends a forward pass after the layer asked for."""


@dataclass(frozen=True)
class Probe:
    """What one pass told: how often each layer ran, in which order it ran last, and what shape it returned."""

    calls: dict[str, int]
    shapes: dict[str, tuple[int, ...]]


class Network:
    """A module with the scale of its input.

    mean and std (0..1 scale, one per colour plane) are needed to read 8-bit images and to make occluders; without
    them the input range is unknown and both are refused. The module's own flags and parameters are never changed for
    longer than a call: it runs in eval mode inside `running` and gets its training flags back.
    """

    def __init__(
        self,
        module: nn.Module,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        name: str = "the network",
    ) -> None:
        self.module, self.name = module, name
        if (mean is None) != (std is None):
            raise SpecError("mean and std go together: give both (0..1 scale) or none")
        if mean is not None and std is not None and not _is_scale(mean, std):
            raise SpecError(f"mean {list(mean)} and std {list(std)}: expected as many of each, finite, std positive")
        self.mean = None if mean is None else tuple(float(m) for m in mean)
        self.std = None if std is None else tuple(float(s) for s in std)
        parameter = next((p for p in module.parameters() if p.is_floating_point()), None)
        self.device = torch.device("cpu") if parameter is None else parameter.device
        self.dtype = torch.float32 if parameter is None else parameter.dtype
        # Scripted parts take no hooks, so they cannot be read; what runs in them is still differentiated.
        scripted = torch.jit.ScriptModule
        self.named = {key: part for key, part in module.named_modules() if key and not isinstance(part, scripted)}
        self.named.setdefault(OUTPUT, module)
        self._probes: dict[tuple[int, ...], Probe] = {}
        self._check_module()

    @classmethod
    def of(cls, module: nn.Module, preprocessing: Preprocessing | None, name: str = "the network") -> "Network":
        """The network of a loaded model; its input range is unknown where preprocessing is None."""
        if preprocessing is None:
            return cls(module, name=name)
        return cls(module, preprocessing.mean, preprocessing.std, name)

    def _check_module(self) -> None:
        if self.dtype in (torch.float16, torch.bfloat16):
            raise SpecError(
                f"{self.name} has {self.dtype} parameters: differences and gradients drown in rounding there; "
                "load it in float32 (module.float())"
            )
        if isinstance(self.module, torch.jit.ScriptModule):
            raise SpecError(f"{self.name} is scripted, which hides its layers and ReLUs: load the plain Python module")
        for key, part in self.named.items():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
                raise SpecError(
                    f"{self.name}: batch norm {key!r} keeps no running statistics: every image depends on its batch; "
                    "attribution needs track_running_stats=True"
                )

    # Images -----------------------------------------------------------------------------------------------------

    def _row(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=self.dtype, device=self.device).view(1, -1, 1, 1)

    def scale(self) -> tuple[Tensor, Tensor]:
        """(mean, std), each [1, C, 1, 1]. Raises SpecError where the input range is unknown."""
        if self.mean is None or self.std is None:
            raise SpecError(
                f"the input range of {self.name} is unknown: give mean and std on the 0..1 scale (--mean, --std)"
            )
        return self._row(self.mean), self._row(self.std)

    def prepare(self, images: np.ndarray) -> Tensor:
        """uint8 [N, h, w, C] -> what the module takes, [N, C, h, w]."""
        mean, std = self.scale()
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != mean.shape[1]:
            raise SpecError(
                f"images: expected uint8 [N, h, w, {mean.shape[1]}], found {images.dtype} {list(images.shape)}"
            )
        pixels = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(self.device).permute(0, 3, 1, 2)
        return ((pixels.to(self.dtype) / 255 - mean) / std).contiguous()

    def pixels(self, x: Tensor) -> Tensor:
        """Network input [N, C, h, w] -> the 0..1 scale."""
        mean, std = self.scale()
        return x * std + mean

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """0..1 [N, C, h, w] -> network input."""
        mean, std = self.scale()
        return (pixels.to(self.device, self.dtype) - mean) / std

    def check_input(self, x: Tensor) -> Tensor:
        """x as a plain floating-point [N, C, h, w] tensor of the network's dtype, detached. Raises SpecError."""
        if not isinstance(x, Tensor):
            raise SpecError(
                f"expected a tensor [N, C, h, w], found {type(x).__name__}: 8-bit images go through prepare()"
            )
        if not x.is_floating_point():
            raise SpecError(
                f"the input has dtype {x.dtype}, which has no gradient and an unknown range: "
                "pass 8-bit images through prepare(), or float values as the network takes them"
            )
        if x.dim() != 4:
            raise SpecError(f"expected images [N, C, h, w], found shape {list(x.shape)}")
        if not bool(torch.isfinite(x).all()):
            raise SpecError("the input holds NaN or Inf")
        with torch.inference_mode(False):  # a tensor made in inference mode cannot carry a gradient
            return x.detach().to(self.device, self.dtype).clone()

    # Passes -----------------------------------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[None]:
        """Eval mode inside; every submodule gets its training flag back, also when the body raises."""
        flags = [(part, part.training) for part in self.module.modules()]
        self.module.eval()
        try:
            yield
        finally:
            for part, training in flags:
                part.training = training

    def probe(self, x: Tensor) -> Probe:
        """Layers, calls and shapes for images of this size, learnt once from the first image.

        Raises SpecError where the module cannot take such images or answers twice in two ways.
        """
        key = tuple(x.shape[1:])
        if key not in self._probes:
            calls: dict[str, int] = {}
            shapes: dict[str, tuple[int, ...]] = {}

            def note(name: str) -> Callable[[nn.Module, object, object], None]:
                def read(module: nn.Module, inputs: object, output: object) -> None:
                    calls[name] = calls.get(name, 0) + 1
                    if isinstance(output, Tensor):
                        shapes.pop(name, None)
                        shapes[name] = tuple(output.shape[1:])

                return read

            with self.running(), torch.no_grad():
                handles = [part.register_forward_hook(note(name)) for name, part in self.named.items()]
                try:
                    first = self.module(x[:1].clone())
                except (RuntimeError, ValueError, TypeError) as error:
                    reason = str(error).strip().splitlines()[0]
                    raise SpecError(
                        f"{self.name} does not take images of shape {list(x.shape[1:])} ({reason}): resize them"
                    ) from None
                finally:
                    for handle in handles:
                        handle.remove()
                second = self.module(x[:1].clone())
            _check_repeatable(first, second, self.name)
            self._probes[key] = Probe(calls, shapes)
        return self._probes[key]

    def shape(self, layer: str, x: Tensor) -> tuple[int, ...]:
        """Shape of what a layer returns for one image of the size of x. Raises SpecError for a layer that is not
        there."""
        if layer not in self.named:
            raise SpecError(f"{self.name} has no layer {layer!r}{suggestion(layer, tuple(self.named))}")
        probe = self.probe(x)
        if layer not in probe.calls:
            raise SpecError(
                f"layer {layer!r} of {self.name} does not run in the forward pass: there is nothing to read"
            )
        if layer not in probe.shapes:
            raise SpecError(f"layer {layer!r} of {self.name} does not return one tensor: choose a layer inside it")
        return probe.shapes[layer]

    def map_layers(self, x: Tensor) -> list[str]:
        """Leaf layers that return maps [N, U, h, w] with more than one place, in order of execution."""
        leaves = {name for name, part in self.named.items() if not any(part.children())}
        shapes = self.probe(x).shapes
        return [n for n, s in shapes.items() if n in leaves and len(s) == 3 and s[1] * s[2] > 1]

    def forward(
        self, x: Tensor, layer: str = OUTPUT, tap: str | None = None, swap: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(what `layer` returns at its last call, what `tap` returned at its last call or None).

        The pass ends with `layer`. Must run inside `running`. Both are safe from later in-place operations, and the
        gradient of the first with respect to the second is defined. swap: another output for `tap`.
        """
        self.shape(layer, x)
        probe = self.probe(x)
        got: dict[str, Tensor] = {}
        counts = {"layer": 0, "tap": 0}  # both may be one layer: the tap's copy is then what is read

        def end(module: nn.Module, inputs: object, output: Tensor) -> None:
            counts["layer"] += 1
            if counts["layer"] == probe.calls[layer]:
                got[layer] = output
                raise Stop

        def hold(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
            counts["tap"] += 1
            if tap is None or counts["tap"] < probe.calls[tap]:
                return None
            got["tap"] = output if swap is None else swap(output)
            return got["tap"].clone()  # what goes on is a copy, so an in-place ReLU behind it leaves the tap alone

        handles = []
        if tap is not None:
            self.shape(tap, x)
            handles.append(self.named[tap].register_forward_hook(hold))
        handles.append(self.named[layer].register_forward_hook(end))
        try:
            self.module(x.clone())
        except Stop:
            pass
        finally:
            for handle in handles:
                handle.remove()
        if layer not in got:
            raise SpecError(
                f"layer {layer!r} of {self.name} ran {counts['layer']} times, {probe.calls[layer]} were expected"
            )
        return got[layer], got.get("tap")


def _check_repeatable(first: object, second: object, name: str) -> None:
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return
    if first.shape != second.shape:
        raise SpecError(f"{name} returned {list(first.shape)}, then {list(second.shape)}: it is not deterministic")
    gap = float((first - second).abs().max()) if first.numel() else 0.0
    top = float(first.abs().max()) if first.numel() else 0.0
    if gap > _REPEATABLE * top:
        raise SpecError(
            f"{name} is not deterministic: two passes over one image differ by {gap:.3g} (largest value {top:.3g}); "
            "switch off its dropout or sampling, an attribution of it would be noise"
        )


def _is_scale(mean: Sequence[float], std: Sequence[float]) -> bool:
    return len(mean) == len(std) > 0 and bool(np.isfinite([*mean, *std]).all()) and min(std) > 0
