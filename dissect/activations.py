"""Activation maps of named layers, taken by hooks that are always removed.

The forward pass ends as soon as the last layer asked for has run. A tensor that later operations may overwrite in
place is copied when it leaves its layer, so what is read is what the layer computed.
"""

import math
from collections.abc import Callable, Sequence
from types import TracebackType

import torch
from torch import Tensor, nn

from dissect.errors import SpecError


def _share_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


class _Stop(Exception):
    """Ends a forward pass after the last layer asked for."""


def as_maps(output: object, layer: str) -> Tensor:
    """The output of a layer as maps [B, h, w, U], float32, contiguous.

    [B, U, h, w] and channel-last [B, h, w, U] (recognised by h = w) grids, vectors [B, U] as 1 x 1 maps, and
    token sequences [B, T, U] whose tokens form a square, with or without leading class tokens.
    Raises SpecError for anything else, naming the shape.
    """
    if not isinstance(output, Tensor):
        raise SpecError(f"layer {layer!r} returns a {type(output).__name__}, not a tensor: choose a layer inside it")
    output = output.detach()
    if not output.is_floating_point():
        raise SpecError(f"layer {layer!r} returns {output.dtype} values, expected floating point")
    if output.dim() == 4:
        _, a, b, c = output.shape
        maps = output if a == b != c else output.permute(0, 2, 3, 1)
    elif output.dim() == 2:
        maps = output[:, None, None, :]
    elif output.dim() == 3:
        tokens = output.shape[1]
        side = math.isqrt(tokens)
        extra = tokens - side * side
        if extra not in (0, 1, 2, 5) or side < 2:  # class, distillation and register tokens come first
            raise SpecError(f"layer {layer!r} has shape {list(output.shape)}: its {tokens} tokens form no square grid")
        maps = output[:, extra:].unflatten(1, (side, side))
    else:
        raise SpecError(
            f"layer {layer!r} has shape {list(output.shape)}: "
            "expected maps [N, U, h, w], vectors [N, U] or tokens [N, T, U]"
        )
    return maps.float().contiguous()


class Taps:
    """Context that reads named layers of a module during `forward`.

    On entry the module is put into eval mode; on exit every hook is removed and every submodule gets its
    training flag back, also when the body raises. A layer that is called several times in one pass is read at
    its last call. compiled: after the first pass, the part of the network that the layers need is compiled by torch
    (`torch.compile`), for every batch size anew.
    """

    def __init__(self, module: nn.Module, layers: Sequence[str], compiled: bool = False) -> None:
        self.module, self.layers = module, tuple(layers)
        self._compiled = torch.compile(self._read_all, dynamic=False) if compiled else None
        self._modules = {}
        named = dict(module.named_modules())
        for name in self.layers:
            if name not in named:
                raise SpecError(f"the model has no layer {name!r}")
            self._modules[name] = named[name]
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._training: list[tuple[nn.Module, bool]] = []
        self._calls: dict[str, int] = {}
        self._expected: dict[str, int] | None = None
        self._maps: dict[str, Tensor] = {}

    def __enter__(self) -> "Taps":
        self._training = [(module, module.training) for module in self.module.modules()]
        self.module.eval()
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for module, training in self._training:
            module.training = training
        self._maps = {}

    @property
    def calls(self) -> dict[str, int]:
        """How often each layer ran in one pass; known after the first `forward`."""
        return dict(self._expected or {})

    def _hook(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def read(module: nn.Module, inputs: object, output: object) -> None:
            if torch.compiler.is_compiling():
                self._maps[name] = as_maps(output, name).clone()
                return
            self._calls[name] = self._calls.get(name, 0) + 1
            if self._expected is not None and self._calls[name] < self._expected[name]:
                return
            maps = as_maps(output, name)
            done = self._expected is not None and self._calls == self._expected
            if not done and isinstance(output, Tensor) and _share_memory(maps, output):
                maps = maps.clone()
            self._maps[name] = maps
            if done:
                raise _Stop

        return read

    @torch.inference_mode()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """images [B, 3, H, W] -> {layer: maps [B, h, w, U]}. The first call runs the whole network to learn how often
        each layer is called; later calls stop at the last one."""
        self._calls, self._maps = {}, {}
        if self._compiled is not None and self._expected is not None:
            return dict(zip(self.layers, self._compiled(images)))
        try:
            self.module(images)
        except _Stop:
            pass
        missing = [name for name in self.layers if name not in self._maps]
        if missing:
            raise SpecError(f"layer {missing[0]!r} did not run in the forward pass, so there is nothing to read")
        if self._expected is None:
            self._expected = dict(self._calls)
        maps, self._maps = self._maps, {}
        return maps

    def _read_all(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps of the layers, as a function to compile: what does not lead to them is left out by the compiler."""
        self._maps = {}
        self.module(images)
        return tuple(self._maps[name] for name in self.layers)
