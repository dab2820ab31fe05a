"""Images in, activation maps out: preprocessing, device, dtype, and smaller steps where memory is short."""

import gc
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

import numpy as np
import torch
from torch import Tensor, nn

from dissect import ops
from dissect.activations import Taps
from dissect.bases import Basis, Recipe
from dissect.errors import DissectError, SpaceError, SpecError
from dissect.models.fusing import Fusing

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _whole(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def default_batch_size(size: tuple[int, int], device: str) -> int:
    """Images of a forward pass. On a CPU about eight of 224 x 224 pixels: their activations stay near the cores, which
    measured faster than larger batches; smaller images make up for it in number. On a GPU 64."""
    if device != "cpu":
        return 64
    fitting = 8 * 224 * 224 // (size[0] * size[1])
    return max(8, min(64, fitting // 8 * 8))


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch or Python means that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("not enough memory" in text or "can't allocate memory" in text)
    )


class Forward:
    """Context that maps uint8 images [B, h, w, 3] to {layer: maps [B, h, w, U] float32} on one device.

    mean and std are on the 0..1 scale. compiled: see `Taps`. basis: layers are seen along its directions. Where a batch
    does not fit into memory it is forwarded in halves, and `step` tells the largest batch that went through.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        device: str = "cpu",
        dtype: str = "float32",
        compiled: bool = False,
        basis: Recipe | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise SpecError(f"dtype {dtype!r} is unknown: expected one of {', '.join(DTYPES)}")
        self.device, self.dtype = torch.device(device), DTYPES[dtype]
        self.module = module.to(self.device, self.dtype).to(memory_format=torch.channels_last)
        self._mean = torch.tensor(mean, dtype=torch.float32, device=self.device) * 255
        self._std = torch.tensor(std, dtype=torch.float32, device=self.device) * 255
        self._rows = self._mean, self._std
        self._layers, self._compiled = layers, compiled
        self.step: int | None = None
        self._recipe, self._bases = basis, dict[int, Basis]()

    def __enter__(self) -> "Forward":
        with ExitStack() as stack:
            if self.device.type == "cpu" and not self._compiled:
                largest = float((((255 - self._mean).abs().maximum(self._mean.abs())) / self._std).max())
                stack.enter_context(Fusing(self.module, self._layers, largest))
            self.taps = stack.enter_context(Taps(self.module, self._layers, self._compiled))
            self._undo = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.__exit__(kind, error, trace)

    def prepare(self, images: np.ndarray) -> Tensor:
        """uint8 [B, h, w, 3] -> [B, 3, h, w] in channels-last memory, (x - 255 mean) / (255 std)."""
        count, height, width, _ = images.shape
        x = torch.from_numpy(images)
        if self.device.type == "cuda":
            x = x.pin_memory().to(self.device, non_blocking=True)
        rows = x.view(count * height, width * 3)  # whole rows: three values would be a short loop
        if len(self._rows[0]) != width * 3:
            self._rows = self._mean.repeat(width), self._std.repeat(width)
        mean, std = self._rows
        if self.device.type == "cpu":
            x = torch.empty(rows.shape, dtype=torch.float32)
            ops.normalise(rows, mean, std, x)
        else:
            x = rows.to(torch.float32).sub_(mean).div_(std)
        return x.view(count, height, width, 3).permute(0, 3, 1, 2).to(self.dtype)

    def __call__(self, images: np.ndarray) -> dict[str, Tensor]:
        """Maps of every layer. Raises SpaceError where not even one image fits into memory."""
        step = self.step or len(images)
        while True:
            try:
                parts = [self.taps.forward(self.prepare(images[i : i + step])) for i in range(0, len(images), step)]
                break
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    if self._compiled and "torch._dynamo" in str(type(error).__mro__):
                        reason = str(error).strip().splitlines()[0]
                        raise DissectError(
                            f"torch cannot compile this network: {reason}; leave --compile out"
                        ) from None
                    raise
                if step == 1:
                    raise SpaceError(
                        f"out of memory forwarding a single image of {images.shape[1]} x {images.shape[2]}: "
                        "use a smaller --input-size or another device"
                    ) from None
            gc.collect()
            step = max(1, step // 2)
            self.step = step
        return {layer: self._seen(_whole([part[layer] for part in parts])) for layer in self.taps.layers}

    def _seen(self, maps: Tensor) -> Tensor:
        """maps [B, h, w, U] along the directions of the basis, if there is one."""
        if self._recipe is None:
            return maps
        units = maps.shape[3]
        if units not in self._bases:
            self._bases[units] = self._recipe(units)
        return self._bases[units](maps)

    def shapes(self, image_size: tuple[int, int]) -> dict[str, tuple[int, int, int]]:
        """(h, w, U) of each layer, from one black image; afterwards the pass stops at the last layer."""
        maps = self(np.zeros((1, *image_size, 3), np.uint8))
        return {layer: (m.shape[1], m.shape[2], m.shape[3]) for layer, m in maps.items()}
