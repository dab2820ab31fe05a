"""The one memory operation of incremental occlusion: dense little maps cut from a cached map with a changed patch in it."""

import torch
from torch import Tensor


def patch_gather(base: Tensor, patch: Tensor, origin: Tensor, start: Tensor, size: tuple[int, int], fill: float) -> Tensor:
    """base [1, U, H, W], patch [K, U, h, w] that replaces base from origin [K, 2] on -> [K, U, size], cut from start [K, 2].

    Places outside the map hold `fill`. All maps are in channels-last memory; origins are int64 on the CPU.
    """
    rows = start[:, :1].to(base.device) + torch.arange(size[0], device=base.device)  # [K, g]
    columns = start[:, 1:].to(base.device) + torch.arange(size[1], device=base.device)
    height, width = base.shape[2:]
    maps = base[0].permute(1, 2, 0)
    out = maps[rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    patch_rows, patch_columns = rows - origin[:, :1].to(base.device), columns - origin[:, 1:].to(base.device)
    h, w = patch.shape[2:]
    if h and w:
        changed = patch.permute(0, 2, 3, 1)[
            torch.arange(len(patch), device=base.device)[:, None, None],
            patch_rows.clamp(0, h - 1)[:, :, None],
            patch_columns.clamp(0, w - 1)[:, None, :],
        ]
        inside = ((patch_rows >= 0) & (patch_rows < h))[:, :, None] & ((patch_columns >= 0) & (patch_columns < w))[:, None, :]
        out = torch.where(inside[..., None], changed, out)
    outside = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[:, None, :]
    out = out.masked_fill(outside[..., None], fill)
    return out.permute(0, 3, 1, 2)
