"""The windows that are hidden, and the map that their values give."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dissect.errors import SpecError


@dataclass(frozen=True)
class Windows:
    """A grid of windows over an image of height x width, in row order.

    low and high [K, 2]: first and one past the last row and column of each window; the last of a row or column may be
    cut by the border. Boxes of one `size` around them start at `origin` [K, 2]: a cut window's box reaches inwards.
    """

    height: int
    width: int
    size: tuple[int, int]
    grid: tuple[int, int]
    low: Tensor
    high: Tensor
    origin: Tensor

    def __len__(self) -> int:
        return len(self.low)

    def __getitem__(self, chosen: slice | Tensor) -> "Windows":
        """Some of the windows; `grid` stays that of all."""
        return Windows(
            self.height, self.width, self.size, self.grid, self.low[chosen], self.high[chosen], self.origin[chosen]
        )

    def inside(self) -> Tensor:
        """bool [K, h, w]: which places of each box belong to its window."""
        rows = self.origin[:, :1] + torch.arange(self.size[0])
        columns = self.origin[:, 1:] + torch.arange(self.size[1])
        row_in = (rows >= self.low[:, :1]) & (rows < self.high[:, :1])
        column_in = (columns >= self.low[:, 1:]) & (columns < self.high[:, 1:])
        return row_in[:, :, None] & column_in[:, None, :]

    def spread(self, values: Tensor) -> Tensor:
        """values [K] -> [height, width]: the mean over the windows that cover a pixel, 0 where none does."""
        total = torch.zeros(self.height + 1, self.width + 1, dtype=torch.float64)
        count = torch.zeros_like(total)
        flat = values.detach().to("cpu", torch.float64)
        # Corners of every window, then running sums: each window costs four additions whatever its size.
        for table, amount in ((total, flat), (count, torch.ones_like(flat))):
            for rows, columns, sign in (
                (self.low[:, 0], self.low[:, 1], 1),
                (self.low[:, 0], self.high[:, 1], -1),
                (self.high[:, 0], self.low[:, 1], -1),
                (self.high[:, 0], self.high[:, 1], 1),
            ):
                table.index_put_((rows, columns), sign * amount, accumulate=True)
        count = count.cumsum(0).cumsum(1)[:-1, :-1].round()
        total = total.cumsum(0).cumsum(1)[:-1, :-1]
        return torch.where(count > 0, total / count.clamp(min=1), 0)


def make_windows(height: int, width: int, patch: int | tuple[int, int], stride: int | tuple[int, int]) -> Windows:
    """Windows of `patch` pixels every `stride` pixels; a last one is added, and cut, until the border is covered.

    Raises SpecError for an image smaller than the patch.
    """
    rows, columns = (patch, patch) if isinstance(patch, int) else patch
    down, right = (stride, stride) if isinstance(stride, int) else stride
    if min(rows, columns, down, right) < 1:
        raise SpecError(f"patch {rows} x {columns} and stride {down} x {right}: expected at least 1 pixel")
    if rows > height or columns > width:
        raise SpecError(
            f"the patch of {rows} x {columns} is larger than the image of {height} x {width}: use a smaller one"
        )

    def starts(length: int, size: int, step: int) -> list[int]:
        found = list(range(0, length, step))
        return [s for i, s in enumerate(found) if i == 0 or found[i - 1] + size < length]

    top, left = starts(height, rows, down), starts(width, columns, right)
    low = torch.cartesian_prod(torch.tensor(top), torch.tensor(left)).view(-1, 2)
    size = torch.tensor([rows, columns])
    limit = torch.tensor([height, width])
    high = torch.minimum(low + size, limit)
    origin = torch.minimum(low, limit - size)
    return Windows(height, width, (rows, columns), (len(top), len(left)), low, high, origin)


def grouped(cost: Tensor, grid: tuple[int, int], batch: int) -> list[Tensor]:
    """Indices of a grid's windows in groups of at most about `batch`: rows of like cost times columns of like cost.

    cost: [max(grid), 2], of row i and of column i. Boxes of one group then need nearly the same size.
    """
    sides = []
    for axis in (0, 1):
        order = cost[: grid[axis], axis].sort(stable=True).indices
        groups = max(1, -(-grid[axis] // max(1, math.isqrt(batch))))
        sides.append(torch.tensor_split(order, groups))
    return [
        (rows[:, None] * grid[1] + columns[None, :]).flatten().sort().values
        for rows in sides[0]
        for columns in sides[1]
    ]
