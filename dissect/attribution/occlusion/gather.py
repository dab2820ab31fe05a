"""The one memory operation of incremental occlusion: little maps cut from a cached map with a changed patch in it."""

import torch
from torch import Tensor

from dissect import ops


def reference_patch_gather(base: Tensor, patch: Tensor, origin: Tensor, start: Tensor, fill: float, out: Tensor) -> None:
    """The plain definition, into out [K, g, g', U]: base [H, W, U], patch [K, h, w, U] over it from origin [K, 2] on.

    Place (y, x) of cut k is place start[k] + (y, x) of the map: the patch where it lies there, else the base, else `fill`.
    """
    height, width = base.shape[:2]
    rows = start[:, :1] + torch.arange(out.shape[1], device=out.device)
    columns = start[:, 1:] + torch.arange(out.shape[2], device=out.device)
    cut = base[rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    if patch.numel():
        h, w = patch.shape[1:3]
        y, x = rows - origin[:, :1], columns - origin[:, 1:]
        which = torch.arange(len(patch), device=out.device)[:, None, None]
        changed = patch[which, y.clamp(0, h - 1)[:, :, None], x.clamp(0, w - 1)[:, None, :]]
        inside = ((y >= 0) & (y < h))[:, :, None] & ((x >= 0) & (x < w))[:, None, :]
        cut = torch.where(inside[..., None], changed, cut)
    outside = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[:, None, :]
    out.copy_(cut.masked_fill(outside[..., None], fill))


def patch_gather(base: Tensor, patch: Tensor, origin: Tensor, start: Tensor, size: tuple[int, int], fill: float) -> Tensor:
    """base [1, U, H, W], patch [K, U, h, w] that replaces base from origin [K, 2] on -> [K, U, size], cut from start [K, 2].

    Places outside the map hold `fill`. Origins are int64. The cuts come in channels-last memory, where a place's units
    lie together; maps in another layout are copied into it.
    """
    out = base.new_empty(len(start), *size, base.shape[1])
    kernel = getattr(ops, "patch_gather", reference_patch_gather)
    kernel(
        base[0].permute(1, 2, 0).contiguous(),
        patch.permute(0, 2, 3, 1).contiguous(),
        origin.to(base.device).contiguous(),
        start.to(base.device).contiguous(),
        fill,
        out,
    )
    return out.permute(0, 3, 1, 2)
