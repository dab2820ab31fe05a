"""The door to the compiled kernels and to the fused ones of oneDNN: one wrapper per op, with shapes. Nothing else
touches `torch.ops`.

The schemas stand in `csrc/ops.cpp`. Where the compiled module is missing, the same schemas are defined from
Python and `reference` stands behind them, so there is one call path; `backend()` says which half runs and why.
DISSECT_KERNELS=reference forces that, DISSECT_KERNELS=compiled forbids it.

Axes: B images, P = h * w places, U units, L labels (largest number + 1), K planes of all images of the batch.
"""

import importlib
import os
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from dissect import reference
from dissect.errors import DissectError

_SCHEMAS = {
    "scan": "(Tensor maps, Tensor valid, int first_image, int keep, Tensor(a!) tail, Tensor(b!) fill, "
    "Tensor(c!) bound, Tensor(d!) low, Tensor(e!) high, Tensor(f!) nonfinite, Tensor(g!) moments, "
    "Tensor(h!) histogram, Tensor(i!) top_value, Tensor(j!) top_image, Tensor(k!) top_place, Tensor(l!) peak) -> ()",
    "gather": "(Tensor maps, int height, int width, Tensor peak, Tensor bound, Tensor(a!) pair_unit, "
    "Tensor(b!) pair_image, Tensor(c!) pair_start, Tensor(d!) node_place, Tensor(e!) node_value, "
    "Tensor(f!) used) -> ()",
    "prune": "(Tensor pair_unit, Tensor pair_image, Tensor pair_start, Tensor node_place, Tensor node_value, "
    "int height, int width, Tensor bound, Tensor(a!) out_unit, Tensor(b!) out_image, Tensor(c!) out_start, "
    "Tensor(d!) out_place, Tensor(e!) out_value, Tensor(f!) used) -> ()",
    "pack": "(Tensor pair_unit, Tensor pair_image, Tensor pair_start, Tensor node_place, Tensor node_value, "
    "int unit_bytes, int image_bytes, int count_bytes, Tensor(a!) out) -> ()",
    "unpack": "(Tensor data, int nodes, int unit_bytes, int image_bytes, int count_bytes, int place_bytes, "
    "Tensor(a!) pair_unit, Tensor(b!) pair_image, Tensor(c!) pair_start) -> ()",
    "overlap": "(Tensor pair_unit, Tensor pair_image, Tensor pair_start, Tensor node_place, Tensor node_value, "
    "int height, int width, Tensor row_node, Tensor row_t, Tensor column_node, Tensor column_t, "
    "Tensor threshold, Tensor planes, Tensor plane_start, Tensor scalars, Tensor scalar_start, Tensor held, "
    "Tensor primary, int area_rule, Tensor(a!) intersection, Tensor(b!) area, Tensor(c!) mask) -> ()",
    "normalise": "(Tensor pixels, Tensor mean, Tensor std, Tensor(a!) out) -> ()",
    "ranking": "(Tensor peaks, Tensor start, Tensor numbers, Tensor primary, Tensor(a!) precision) -> ()",
    "patch_gather": "(Tensor base, Tensor patch, Tensor origin, Tensor start, float fill, Tensor(a!) out) -> ()",
    "natural": "(Tensor z, float alpha, float alpha_scale, float beta, float variation_scale, Tensor(a!) gradient, "
    "Tensor(b!) rows) -> ()",
    "descend": "(Tensor z, Tensor gradient, float alpha, float alpha_scale, float beta, float variation_scale, "
    "Tensor rate, float mu, float memory, float radius, Tensor(a!) squares, Tensor(b!) speeds, Tensor(c!) out, "
    "Tensor(d!) rows) -> ()",
    "render_patterns": "(Tensor kinds, Tensor neuron_start, Tensor link_start, Tensor sender, Tensor weight, "
    "Tensor places, Tensor(a!) out) -> ()",
}

OPS = tuple(_SCHEMAS)


def _import_half(name: str) -> str:
    """Import one compiled half; returns "" or the reason why it is not there."""
    try:
        importlib.import_module(f"dissect.{name}")
    except ImportError as error:
        return str(error).splitlines()[0]
    return ""


def _load() -> tuple[str, str, str]:
    """Bring the ops into being. Returns (backend, reason it is not compiled, reason CUDA is missing)."""
    wish = os.environ.get("DISSECT_KERNELS", "")
    if wish not in ("", "reference", "compiled"):
        raise DissectError(f"DISSECT_KERNELS is {wish!r}: expected 'reference', 'compiled' or nothing")
    missing = "DISSECT_KERNELS=reference" if wish == "reference" else _import_half("_C")
    no_cuda = "the C++ half is not loaded"
    if not missing:
        no_cuda = "" if not torch.cuda.is_available() else _import_half("_C_cuda")
        if not torch.cuda.is_available():
            no_cuda = "torch sees no GPU"
        elif no_cuda:
            warnings.warn(f"the CUDA kernels are not loaded ({no_cuda}); counting runs on the CPU", stacklevel=3)
    else:
        if wish == "compiled":
            raise DissectError(
                f"DISSECT_KERNELS=compiled, but the kernels are not loaded: {missing}. Run `make build`."
            )
        if wish != "reference":
            warnings.warn(f"compiled kernels missing ({missing}); the slow reference runs instead", stacklevel=3)
        library = torch.library.Library("dissect", "DEF")
        for name, schema in _SCHEMAS.items():
            library.define(name + schema)
            library.impl(name, getattr(reference, name), "CPU")
        globals()["_fallback"] = library  # the registration lives as long as this object
    for name in _SCHEMAS:
        torch.library.register_fake(f"dissect::{name}", lambda *args: None)
    return ("reference" if missing else "compiled"), missing, no_cuda


_BACKEND, _MISSING, _NO_CUDA = _load()


def backend() -> dict[str, str]:
    """Which half counts and why: keys `cpu` ("compiled" or "reference"), `why`, `cuda` ("yes" or the reason not)."""
    return {"cpu": _BACKEND, "why": _MISSING, "cuda": _NO_CUDA or "yes"}


def answers(tensor: Tensor) -> bool:
    """Whether an op can be asked about this tensor where it is: on a GPU that takes the CUDA half."""
    return not tensor.is_cuda or not _NO_CUDA


def scan(
    maps: Tensor,
    valid: Tensor,
    first_image: int,
    keep: int,
    tail: Tensor,
    fill: Tensor,
    bound: Tensor,
    low: Tensor,
    high: Tensor,
    nonfinite: Tensor,
    moments: Tensor,
    histogram: Tensor,
    top_value: Tensor,
    top_image: Tensor,
    top_place: Tensor,
    peak: Tensor,
) -> None:
    """One read of maps [B, P, U] float32 into every per-unit statistic, in place.

    valid [B] bool (False: the image is skipped, its peaks are -inf); tail [U, cap], fill [U] int64 and bound [U]
    hold the `keep` largest values and a running lower bound of the threshold; low, high [U]; nonfinite [U] int64;
    moments [U, 2] float64 (sum, sum of squares); histogram [2048, U] int32 counts values by sign, exponent and two
    bits of fraction (see csrc/core/activation.h), or has no columns; top_value, top_image, top_place [U, E] exemplars,
    image -1 where the slot is free; peak [B, U] receives the largest finite value of each map.
    """
    torch.ops.dissect.scan(
        maps, valid, first_image, keep, tail, fill, bound, low, high, nonfinite, moments, histogram, top_value,
        top_image, top_place, peak,
    )  # fmt: skip


def gather(
    maps: Tensor,
    height: int,
    width: int,
    peak: Tensor,
    bound: Tensor,
    pair_unit: Tensor,
    pair_image: Tensor,
    pair_start: Tensor,
    node_place: Tensor,
    node_value: Tensor,
    used: Tensor,
) -> None:
    """Nodes of maps [B, P, U] above bound [U] and their eight neighbours, as a sparse chunk.

    Pairs (unit, image) ascend by unit, then image; nodes of a pair ascend by place. used [2] int64 receives the
    number of pairs and nodes; where they exceed the output tensors nothing else is written.
    """
    torch.ops.dissect.gather(
        maps, height, width, peak, bound, pair_unit, pair_image, pair_start, node_place, node_value, used
    )


def prune(
    pair_unit: Tensor,
    pair_image: Tensor,
    pair_start: Tensor,
    node_place: Tensor,
    node_value: Tensor,
    height: int,
    width: int,
    bound: Tensor,
    out_unit: Tensor,
    out_image: Tensor,
    out_start: Tensor,
    out_place: Tensor,
    out_value: Tensor,
    used: Tensor,
) -> None:
    """`gather` on a chunk that was gathered under a lower bound."""
    torch.ops.dissect.prune(
        pair_unit, pair_image, pair_start, node_place, node_value, height, width, bound, out_unit, out_image,
        out_start, out_place, out_value, used,
    )  # fmt: skip


def pack(
    pair_unit: Tensor,
    pair_image: Tensor,
    pair_start: Tensor,
    node_place: Tensor,
    node_value: Tensor,
    unit_bytes: int,
    image_bytes: int,
    count_bytes: int,
    out: Tensor,
) -> None:
    """A chunk into out [n] uint8, at a multiple of 8: node_value as float32, pair_unit, pair_image and the numbers of
    nodes of the pairs in so many low bytes (1, 2 or 4), and node_place, each at the next multiple of 8."""
    call = reference.pack if out.is_cuda else torch.ops.dissect.pack
    call(pair_unit, pair_image, pair_start, node_place, node_value, unit_bytes, image_bytes, count_bytes, out)


def unpack(
    data: Tensor,
    nodes: int,
    unit_bytes: int,
    image_bytes: int,
    count_bytes: int,
    place_bytes: int,
    pair_unit: Tensor,
    pair_image: Tensor,
    pair_start: Tensor,
) -> None:
    """The pairs of what `pack` wrote into data [n] uint8: their number is the length of pair_unit."""
    call = reference.unpack if data.is_cuda else torch.ops.dissect.unpack
    call(data, nodes, unit_bytes, image_bytes, count_bytes, place_bytes, pair_unit, pair_image, pair_start)


def overlap(
    pair_unit: Tensor,
    pair_image: Tensor,
    pair_start: Tensor,
    node_place: Tensor,
    node_value: Tensor,
    height: int,
    width: int,
    row_node: Tensor,
    row_t: Tensor,
    column_node: Tensor,
    column_t: Tensor,
    threshold: Tensor,
    planes: Tensor,
    plane_start: Tensor,
    scalars: Tensor,
    scalar_start: Tensor,
    held: Tensor,
    primary: Tensor,
    area_rule: int,
    intersection: Tensor,
    area: Tensor,
    mask: Tensor,
) -> None:
    """Upsample, threshold (strictly) and count the masks of one chunk, adding to int64 totals in place.

    row_node [H, 2] int32, row_t [H] (and columns) are axis tables; threshold [U]; planes [K, H, W] int16 read as
    unsigned, plane_start [B + 1]; scalars [S] int32, scalar_start [B + 1]; held [B] int64 bit set of the
    categories an image holds; primary [L] int16; area_rule as in `csrc/core/overlap.h`;
    intersection [U, L], area [U, categories], mask [U] (all images).
    """
    torch.ops.dissect.overlap(
        pair_unit, pair_image, pair_start, node_place, node_value, height, width, row_node, row_t, column_node,
        column_t, threshold, planes, plane_start, scalars, scalar_start, held, primary, area_rule, intersection,
        area, mask,
    )  # fmt: skip


def normalise(pixels: Tensor, mean: Tensor, std: Tensor, out: Tensor) -> None:
    """(pixels - mean) / std into out [R, V] float32; pixels [R, V] uint8, mean and std [V] float32."""
    torch.ops.dissect.normalise(pixels, mean, std, out)


def ranking(peaks: Tensor, start: Tensor, numbers: Tensor, primary: Tensor, precision: Tensor) -> None:
    """Average precision of ranking images by a unit's peaks, into precision [U, L] float64.

    peaks [U, N] float32; image i holds the labels numbers[start[i]:start[i + 1]], each once (start [N + 1] int64,
    numbers int32); primary [L] int16 category of each label or -1. A label competes among the images that hold a
    label of its category; equal peaks are one step of the ranking. NaN where no image holds the label,
    or where it has no category. On the CPU alone: it is asked once a run.
    """
    torch.ops.dissect.ranking(peaks, start, numbers, primary, precision)


def patch_gather(base: Tensor, patch: Tensor, origin: Tensor, start: Tensor, fill: float, out: Tensor) -> None:
    """Cut K little maps out of base [H, W, U], each with its patch [K, h, w, U] laid over it from origin [K, 2] on.

    Place (y, x) of out[k] [K, g, g', U] is place start[k] + (y, x) of the map: the patch where it lies there, else the
    base, else `fill`. origin and start [K, 2] are int64.
    """
    torch.ops.dissect.patch_gather(base, patch, origin, start, fill, out)


def natural(
    z: Tensor, alpha: float, alpha_scale: float, beta: float, variation_scale: float, gradient: Tensor, rows: Tensor
) -> None:
    """Priors of natural pre-images and their gradient, of z [B, C, h, w] float32 in one read.

    alpha_scale sum |z_px|^alpha + variation_scale TV^beta, with |z_px| the length of a pixel over the planes and TV's
    last row and column replicated (Mahendran & Vedaldi, IJCV 2016, section 3). gradient [B, C, h, w]; rows [B, h, 2]
    float64 receives for every row its part of the energy, and the sum of |gradient|.
    """
    torch.ops.dissect.natural(z, alpha, alpha_scale, beta, variation_scale, gradient, rows)


def descend(
    z: Tensor,
    gradient: Tensor,
    alpha: float,
    alpha_scale: float,
    beta: float,
    variation_scale: float,
    rate: Tensor,
    mu: float,
    memory: float,
    radius: float,
    squares: Tensor,
    speeds: Tensor,
    out: Tensor,
    rows: Tensor,
) -> None:
    """One step down `gradient` [B, C, h, w], that of the objective, and the priors of `natural`, in one read.

    With g their sum: squares = memory squares + g^2; speeds = mu speeds - g / (1 / rate + sqrt squares), both in place;
    out = z + speeds with every pixel drawn into the ball of `radius`. rate [B] float32; rows as in `natural`, with
    the sum of |g|. out must not be z.
    """
    torch.ops.dissect.descend(
        z, gradient, alpha, alpha_scale, beta, variation_scale, rate, mu, memory, radius, squares, speeds, out, rows
    )


def render_patterns(
    kinds: Tensor, neuron_start: Tensor, link_start: Tensor, sender: Tensor, weight: Tensor, places: Tensor, out: Tensor
) -> None:
    """Draw P pattern-producing networks at V places, out [P, 1 or 3, V] float32 in 0 … 1.

    The neurons of pattern p are kinds[neuron_start[p]:neuron_start[p + 1]] (int8: four inputs -1, hidden 0 sine,
    1 sigmoid, 2 Gaussian, 3 linear, outputs -2 last); neuron i is reached by links link_start[i] … link_start[i + 1],
    whose sender (int32, a number within the pattern) comes before it. places [4, V]: what the inputs hold. Outputs are
    lightness, or hue, lightness, saturation, after a sigmoid.
    """
    torch.ops.dissect.render_patterns(kinds, neuron_start, link_start, sender, weight, places, out)


def fuses(dtype: torch.dtype) -> bool:
    """Whether this torch and this processor can take what follows a convolution into it (oneDNN)."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


def fused_weight(conv: torch.nn.Conv2d, shape: torch.Size) -> Tensor:
    """The weight of a convolution laid out for `fused_convolution` of inputs [B, C, h, w] of about that shape."""
    weight: Tensor = torch.ops.mkldnn._reorder_convolution_weight(conv.weight, *_geometry(conv), list(shape))
    return weight


def fused_convolution(
    x: Tensor, conv: torch.nn.Conv2d, weight: Tensor, after: str, scalars: Sequence[float] = ()
) -> Tensor:
    """What conv gives for x [B, C, h, w], then `relu` or `hardtanh` (scalars: its ends); NaN becomes a number."""
    y: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, conv.bias, *_geometry(conv), after, list(scalars), ""
    )
    return y


def _geometry(conv: torch.nn.Conv2d) -> tuple[object, ...]:
    """As oneDNN's operators take it."""
    return conv.padding, conv.stride, conv.dilation, conv.groups
