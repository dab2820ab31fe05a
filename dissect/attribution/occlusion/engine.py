"""How the masked forward passes of one target are made: incrementally where the network can be traced, else whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dissect.attribution.network import Network
from dissect.attribution.occlusion.occluders import Occluder
from dissect.attribution.occlusion.propagate import Propagation
from dissect.attribution.occlusion.tracing import Trace, Untraceable, trace
from dissect.attribution.occlusion.values import Patch, cut_base
from dissect.attribution.occlusion.windows import Windows, grouped
from dissect.attribution.targets import Target
from dissect.errors import SpecError

ENGINES = ("auto", "incremental", "dense")

# Vectors behind the last map that wait to be finished together: fully connected weights are read once for all of them.
TAIL_BATCH = 512


def tolerance(dtype: torch.dtype) -> float:
    """The share of the largest output by which incremental and masked forward may differ: orders of sums."""
    return 1e-10 if dtype == torch.float64 else 1e-4


@dataclass(frozen=True)
class Engine:
    """The trace, or why there is none."""

    steps: Trace | None
    reason: str = ""


def prepare_engine(network: Network, x: Tensor, layer: str, engine: str = "auto") -> Engine:
    """Trace the network if asked and possible. Raises SpecError for `incremental` where it is not."""
    if engine not in ENGINES:
        raise SpecError(f"engine {engine!r} is unknown: expected {', '.join(ENGINES)}")
    if engine == "dense":
        return Engine(None, "dense was asked for")
    with network.running(), torch.no_grad():
        try:
            steps = trace(network.module, layer)
            traced = Propagation(steps, x[:1]).base[steps.nodes[-1]]
            direct = network.forward(x[:1], layer)[0]
            if not _close(traced, direct):
                raise Untraceable("its traced steps do not give its output")
        except Untraceable as error:
            if engine == "incremental":
                raise SpecError(
                    f"{network.name} cannot be occluded incrementally: {error}; use the dense engine"
                ) from None
            return Engine(None, str(error))
    return Engine(steps)


def _close(a: Any, b: Tensor) -> bool:
    if not isinstance(a, Tensor) or a.shape != b.shape:
        return False
    return float((a - b).abs().max()) <= tolerance(b.dtype) * max(float(b.abs().max()), 1e-30)


def masked_patches(network: Network, x: Tensor, windows: Windows, occluder: Occluder, draw: int) -> Tensor:
    """What stands in each window's box, [K, C, h, w], for image x [1, C, H, W]: the occluder inside, the image
    around."""
    contents = occluder.contents(network, x, windows, draw)
    around = cut_base(x, windows.origin, windows.size)
    return torch.where(windows.inside()[:, None].to(x.device), contents, around)


def masked_images(x: Tensor, patches: Tensor, windows: Windows) -> Tensor:
    """The images with their boxes replaced, [K, C, H, W]: what a dense pass sees."""
    return Patch(patches, windows.origin, x, windows.low, windows.high).dense().contiguous()


def occluded_outputs(
    network: Network,
    x: Tensor,
    target: Target,
    windows: Windows,
    occluder: Occluder,
    engine: Engine,
    batch: int,
    draw: int = 0,
    cap: float | None = None,
    books: dict[str, Any] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(which windows [k], what the target's layer returns for them [k, …]) for one image x [1, C, H, W]."""
    with network.running(), torch.no_grad():
        if engine.steps is None:
            for first in range(0, len(windows), batch):
                part = windows[first : first + batch]
                patches = masked_patches(network, x, part, occluder, draw)
                chosen = torch.arange(first, first + len(part))
                yield chosen, network.forward(masked_images(x, patches, part), target.layer)[0]
            return
        flow = Propagation(engine.steps, x, cap)
        waiting: list[tuple[Tensor, Tensor]] = []
        for chosen in _groups(flow, windows, batch):
            part = windows[chosen]
            result = flow.head(
                Patch(masked_patches(network, x, part, occluder, draw), part.origin, x, part.low, part.high)
            )
            if books is not None:
                books["incremental_steps"] = max(books.get("incremental_steps", 0), flow.incremental_steps)
                books["steps"] = len(flow.steps.nodes)
            value = result.dense() if isinstance(result, Patch) else result.values
            if flow.has_tail:
                waiting.append((chosen, value))
                if sum(len(c) for c, _ in waiting) >= TAIL_BATCH:
                    yield _finish(flow, waiting)
                    waiting = []
            else:
                yield chosen, value
        if waiting:
            yield _finish(flow, waiting)


def _groups(flow: Propagation, windows: Windows, batch: int) -> list[Tensor]:
    """The windows of a whole grid in groups that need boxes of like size; any other selection in order."""
    if len(windows) != windows.grid[0] * windows.grid[1]:
        return list(torch.arange(len(windows)).split(batch))
    diagonal = torch.arange(max(windows.grid))
    rows, columns = diagonal.clamp(max=windows.grid[0] - 1), diagonal.clamp(max=windows.grid[1] - 1)
    low, high = (
        torch.stack([end[rows * windows.grid[1], 0], end[columns, 1]], 1) for end in (windows.low, windows.high)
    )
    return grouped(flow.reach(low, high), windows.grid, batch)


def _finish(flow: Propagation, waiting: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([chosen for chosen, _ in waiting]), flow.tail(torch.cat([value for _, value in waiting]))
