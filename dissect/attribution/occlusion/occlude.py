"""The occlusion map of a target: exact by default, incremental where the network allows it, checked in every run."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dissect.attribution.gradients import Attribution, scores
from dissect.attribution.network import OUTPUT, Network
from dissect.attribution.occlusion.engine import (
    Engine,
    masked_images,
    masked_patches,
    occluded_outputs,
    prepare_engine,
    tolerance,
)
from dissect.attribution.occlusion.occluders import Occluder, find_occluder
from dissect.attribution.occlusion.windows import Windows, make_windows
from dissect.attribution.targets import Target
from dissect.attribution.watching import Watch, nobody
from dissect.errors import SpecError

VALUES = ("drop", "score")


def occlude(
    network: Network,
    x: Tensor,
    target: Target,
    patch: int | tuple[int, int] = 16,
    stride: int | tuple[int, int] = 8,
    occluder: Occluder | str = "grey",
    value: str = "drop",
    engine: str = "auto",
    batch: int = 64,
    cap: float | None = None,
    watch: Watch = nobody,
) -> Attribution:
    """Occlusion maps of images x [N, C, H, W] (Zeiler and Fergus 2014, section 4.2).

    values [N, 1, rows, columns]: one number a window, the drop f(x) - f(masked) or the score f(masked) itself; map: its
    mean over the windows that cover a pixel. extra: `outputs_class` [N, rows, columns], the most probable class with
    each window hidden (targets on the output only), `deviation` over the draws of a random occluder, `windows`.
    The incremental engine is checked against the masked forward at two windows of every image; where it disagrees, the
    image is done again densely and a note says so. cap: the approximate mode (0..1], see `occlude_approximately`.
    watch: told the windows that are done.
    Raises SpecError for a patch larger than the image, an unknown occluder, value or engine.
    """
    occluder = find_occluder(occluder)
    if value not in VALUES:
        raise SpecError(f"occlusion value {value!r} is unknown: expected {', '.join(VALUES)}")
    if cap is not None and not 0 < cap <= 1:
        raise SpecError(f"cap {cap}: expected a share of the map above 0 and up to 1")
    x = network.check_input(x)
    windows = make_windows(x.shape[2], x.shape[3], patch, stride)
    target.check(network, x)
    made = prepare_engine(network, x, target.layer, engine)
    score = scores(network, x, target)
    notes = [] if made.steps is not None or engine == "dense" else [f"dense engine: {made.reason}"]
    if value == "score":
        notes.append("values are the scores with the window hidden: low means important")
    grids, deviations, classes, gaps = [], [], [], []
    books: dict[str, Any] = {}
    each = len(windows) * occluder.draws
    for i in range(len(x)):
        image = x[i : i + 1]
        found = _image(
            network, image, target, windows, occluder, made, batch, cap, books,
            partial(_tell, watch, i * each, len(x) * each),
        )  # fmt: skip
        if made.steps is not None and cap is None:
            gap, scale = _check(network, image, target, windows, occluder, found[0])
            if gap > tolerance(x.dtype) * scale:
                notes.append(
                    f"image {i}: the incremental pass missed the masked forward by {gap:.3g}; done again densely"
                )
                found = _image(network, image, target, windows, occluder, Engine(None), batch, None, books)
                gap = 0.0
            gaps.append(gap)
        values = found[0].mean(0)
        grids.append(values if value == "score" else score[i].cpu() - values)
        deviations.append(found[0].std(0, unbiased=False))
        classes.append(found[1])
    if not grids:
        raise SpecError("no image to occlude: the batch is empty")
    flat = torch.stack(grids)
    extra: dict[str, Any] = {
        "windows": windows,
        "engine": "incremental" if made.steps is not None else "dense",
        **books,
    }
    if gaps:
        extra["checked_gap"] = max(gaps)
    if classes[0] is not None:
        extra["outputs_class"] = torch.stack([c.view(windows.grid) for c in classes if c is not None])
    if occluder.draws > 1:
        extra["deviation"] = torch.stack(deviations).view(len(x), *windows.grid)
    method = {
        "name": "occlusion",
        "occluder": occluder.name,
        "patch": list(windows.size),
        "stride": stride,
        "value": value,
        "draws": occluder.draws,
        "cap": cap,
    }
    maps = torch.stack([windows.spread(row) for row in flat]).to(x.dtype)
    return Attribution(
        method, target.title, flat.view(len(x), 1, *windows.grid), maps, score, None, tuple(notes), extra
    )


def _tell(watch: Watch, before: int, total: int, done: int) -> None:
    watch(before + done, total)


def _image(
    network: Network,
    x: Tensor,
    target: Target,
    windows: Windows,
    occluder: Occluder,
    engine: Engine,
    batch: int,
    cap: float | None,
    books: dict[str, Any],
    watch: Callable[[int], None] = lambda done: None,
) -> tuple[Tensor, Tensor | None]:
    """(scores [draws, K], most probable class [K] of the first draw or None) for one image."""
    rows: list[Tensor] = []
    classes: Tensor | None = None
    done = 0
    for draw in range(occluder.draws):
        row = torch.empty(len(windows), dtype=x.dtype)
        for chosen, output in occluded_outputs(network, x, target, windows, occluder, engine, batch, draw, cap, books):
            row[chosen] = target.score(output).cpu()
            done += len(chosen)
            watch(done)
            if target.layer == OUTPUT and output.dim() == 2 and draw == 0:
                classes = torch.empty(len(windows), dtype=torch.int64) if classes is None else classes
                classes[chosen] = output.argmax(1).cpu()
        rows.append(row)
    return torch.stack(rows), classes


def _check(
    network: Network, x: Tensor, target: Target, windows: Windows, occluder: Occluder, found: Tensor
) -> tuple[float, float]:
    """(largest difference, scale) between the incremental scores and masked forward passes at two windows."""
    chosen = torch.tensor(sorted({0, len(windows) // 2}))
    part = windows[chosen]
    patches = masked_patches(network, x, part, occluder, 0)
    direct = scores(network, masked_images(x, patches, part), target).cpu()
    with torch.no_grad(), network.running():
        scale = float(network.forward(x, target.layer)[0].abs().max())
    if target.probability:
        scale = 1.0
    return float((direct - found[0, chosen]).abs().max()), max(scale, 1e-30)


def occlude_approximately(
    network: Network, x: Tensor, target: Target, cap: float = 0.4, sample: int = 32, seed: int = 0, **settings: Any
) -> Attribution:
    """The approximate mode: no box grows beyond `cap` of its map, so far-off effects of a window are left out.

    Its error is measured against the exact pass on `sample` random windows of every image and stands in
    extra["error"]: the largest and the mean absolute difference, and both as shares of the map's range.
    """
    approximate = occlude(network, x, target, cap=cap, engine="incremental", **settings)
    windows: Windows = approximate.extra["windows"]
    occluder = find_occluder(settings.get("occluder", "grey"))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(windows), generator=generator)[:sample].sort().values
    clean = network.check_input(x)
    exact = []
    for i in range(len(clean)):
        engine = Engine(None)
        exact.append(
            _image(
                network,
                clean[i : i + 1],
                target,
                windows[chosen],
                occluder,
                engine,
                settings.get("batch", 64),
                None,
                {},
            )[0].mean(0)
        )
    values = approximate.values.flatten(1)
    truth = torch.stack(exact)
    if settings.get("value", "drop") == "drop":
        truth = approximate.score.cpu()[:, None] - truth
    gap = (values[:, chosen] - truth).abs()
    span = float(values.max() - values.min()) or 1.0
    error = {
        "windows": len(chosen),
        "largest": float(gap.max()),
        "mean": float(gap.mean()),
        "largest_share": float(gap.max()) / span,
        "mean_share": float(gap.mean()) / span,
    }
    note = (
        f"approximate (cap {cap:g}): off by {error['mean_share']:.2%} of the map's range on average, "
        f"{error['largest_share']:.2%} at most, on {len(chosen)} windows"
    )
    return Attribution(
        approximate.method,
        approximate.target,
        approximate.values,
        approximate.map,
        approximate.score,
        None,
        (*approximate.notes, note),
        {**approximate.extra, "error": error},
    )
