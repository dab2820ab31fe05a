"""The one memory operation of incremental occlusion: little maps cut from a cached map with a changed patch in it."""

from torch import Tensor

from dissect import ops, reference


def patch_gather(
    base: Tensor, patch: Tensor, origin: Tensor, start: Tensor, size: tuple[int, int], fill: float
) -> Tensor:
    """base [1, U, H, W], patch [K, U, h, w] that replaces base from origin [K, 2] on -> [K, U, size], cut from start
    [K, 2].

    Places outside the map hold `fill`. Origins are int64. The cuts come in channels-last memory, where a place's units
    lie together; maps in another layout are copied into it.
    """
    out = base.new_empty(len(start), *size, base.shape[1])
    # A GPU without the CUDA half of the kernels: the plain definition runs there too.
    cut = ops.patch_gather if ops.answers(base) else reference.patch_gather
    cut(
        base[0].permute(1, 2, 0).contiguous(),
        patch.permute(0, 2, 3, 1).contiguous(),
        origin.to(base.device).contiguous(),
        start.to(base.device).contiguous(),
        fill,
        out,
    )
    return out.permute(0, 3, 1, 2)
