"""A network seen from its input: byte-unit images in, codes of named layers out, and gradients back."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from dissect.errors import SpecError
from dissect.inversion.pixels import InputRange
from dissect.inversion.relus import Relus

OUTPUT = "output"


class _Stop(Exception):
    """Ends a forward pass after the last layer asked for."""


class Network:
    """A module in eval mode with its input range and image size; it is probed once with a grey image.

    Layers go by their module names; `output` is what the network returns. A layer called several times in a pass is
    read at its last call, as in a dissection.
    """

    def __init__(self, module: nn.Module, pixels: InputRange, size: tuple[int, int], name: str = "network") -> None:
        # Units last in memory: measured a third faster for batches, forward and backward.
        self.module = module.eval().to(memory_format=torch.channels_last)
        self.pixels, self.size, self.name = pixels, size, name
        self._named = {key: value for key, value in module.named_modules() if key}
        self._named.setdefault(OUTPUT, module)
        self.identity: object = name  # what a state file of this network is told apart by
        self.weights_sha256: str | None = None  # of the file that the weights came from
        self._calls: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._order: list[str] = []
        parameter = next(iter(module.parameters()), None)
        self.device = torch.device("cpu") if parameter is None else parameter.device
        self.dtype = torch.float32 if parameter is None else parameter.dtype
        self._probe()

    def _probe(self) -> None:
        """Learn the order, the calls and the shapes of all layers."""

        def note(name: str) -> Callable[[nn.Module, object, object], None]:
            def read(module: nn.Module, inputs: object, output: object) -> None:
                self._calls[name] = self._calls.get(name, 0) + 1
                if name in self._order:
                    self._order.remove(name)
                self._order.append(name)
                if isinstance(output, Tensor):
                    self._shapes[name] = tuple(output.shape[1:])

            return read

        handles = [module.register_forward_hook(note(name)) for name, module in self._named.items()]
        grey = torch.zeros(1, self.pixels.planes, *self.size, device=self.device, dtype=self.dtype)
        try:
            with torch.no_grad():
                self.module(grey)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise SpecError(
                f"{self.name} does not take images of {self.size[0]} x {self.size[1]} x {self.pixels.planes} "
                f"({reason}): give a larger --input-size"
            ) from None
        finally:
            for handle in handles:
                handle.remove()

    @property
    def layers(self) -> list[str]:
        """Layers that ran and returned a tensor, in order of execution."""
        return [name for name in self._order if name in self._shapes]

    def shape(self, layer: str) -> tuple[int, ...]:
        """Shape of one code of a layer, without the batch. Raises SpecError for a layer that is not there."""
        if layer not in self._named:
            near = ", ".join(self.layers[:12])
            raise SpecError(f"{self.name} has no layer {layer!r}: it has {near}{' …' if len(self.layers) > 12 else ''}")
        if layer not in self._calls:
            raise SpecError(
                f"layer {layer!r} of {self.name} did not run in the forward pass, so there is nothing to read"
            )
        if layer not in self._shapes:
            raise SpecError(f"layer {layer!r} of {self.name} does not return one tensor: choose a layer inside it")
        return self._shapes[layer]

    def stride(self, layer: str) -> int:
        """Pixels from one place of a layer's map to the next; the whole image for a layer without a map."""
        shape = self.shape(layer)
        return max(1, round(min(self.size) / min(shape[1:]))) if len(shape) == 3 else min(self.size)

    @property
    def classes(self) -> int:
        """Length of the output vector. Raises SpecError for a network that returns something else."""
        shape = self.shape(OUTPUT)
        if len(shape) != 1:
            raise SpecError(f"{self.name} returns {list(shape)} per image, expected one vector of class scores")
        return shape[0]

    def features(self, z: Tensor, layers: Sequence[str], relus: Relus | None = None) -> dict[str, Tensor]:
        """Codes of the layers for z [B, C, h, w]; the pass ends with the last of them.

        relus: what the ReLUs do while this pass runs. Raises SpecError where a layer gives no real numbers.
        """
        wanted = dict.fromkeys(layers)
        for name in wanted:
            self.shape(name)
        codes: dict[str, Tensor] = {}
        calls = dict.fromkeys(wanted, 0)

        def note(name: str) -> Callable[[nn.Module, object, object], None]:
            def read(module: nn.Module, inputs: object, output: object) -> None:
                calls[name] += 1
                if calls[name] < self._calls[name] or not isinstance(output, Tensor):
                    return
                last = len(codes) == len(wanted) - 1
                # A later in-place operation would overwrite it; after the last layer nothing runs.
                codes[name] = output if last else output.clone()
                if last:
                    raise _Stop

            return read

        handles = [self._named[name].register_forward_hook(note(name)) for name in wanted]
        try:
            feed = self.pixels.to_input(z).contiguous(memory_format=torch.channels_last)
            with nullcontext() if relus is None else relus:
                self.module(feed)
        except _Stop:
            pass
        finally:
            for handle in handles:
                handle.remove()
        for name, code in codes.items():
            if not code.is_floating_point():
                raise SpecError(f"layer {name!r} of {self.name} returns {code.dtype} values, which have no gradient")
            if z.requires_grad and not code.requires_grad:
                raise SpecError(
                    f"layer {name!r} of {self.name} passes no gradient to the image: choose an earlier layer"
                )
        return codes

    def logits(self, z: Tensor) -> Tensor:
        """Class scores before the softmax, [B, classes]."""
        return self.features(z, [OUTPUT])[OUTPUT]

    @torch.no_grad()
    def codes(self, z: Tensor, layer: str, batch: int = 16) -> Tensor:
        """Codes of one layer for any number of images, without gradients, in batches."""
        return torch.cat([self.features(part, [layer])[layer] for part in z.split(batch)])

    def check_class(self, number: int) -> int:
        """A class number of this network. Raises SpecError when out of range."""
        if not 0 <= number < self.classes:
            raise SpecError(f"class {number} is out of range: {self.name} has classes 0 to {self.classes - 1}")
        return number

    def check_unit(self, layer: str, unit: int) -> int:
        units = self.shape(layer)[0]
        if not 0 <= unit < units:
            raise SpecError(f"unit {unit} is out of range: layer {layer!r} of {self.name} has units 0 to {units - 1}")
        return unit
