"""The search for a range by the compiled kernel `quantbench.kernels.ranges`, on a processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantbench.core.lazy import lazy_module
from quantbench.formats.grid import IntGrid, smallest_scale
from quantbench.kernels.loading import in_parts, kernels, on_processor

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

DTYPES = {"float16": 0, "bfloat16": 1, "float32": 2}
LEAST = 256  # groups for each thread


def ranges_left(
    grid: IntGrid, values: Tensor, bounds: tuple[Tensor, Tensor], factors: Tensor, importance: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Which of the ranges can have the smallest error: only int64 [m], left bool [m, k]; None without a kernel.

    values [m, n], bounds [m, 1] each, factors [k], importance [r, n] of the groups 0 to r - 1, then again; or None. For
    each group, the index of the one range that is left, or -1 where it is several.
    """
    kernel = kernels("ranges") if on_processor(values) and grid.zero_rounding else None
    if kernel is None:
        return None
    v, low, high, tried = (t.detach().float().contiguous().numpy() for t in (values, *bounds, factors))
    w = v[:1] if importance is None else importance.detach().float().contiguous().numpy()
    only = torch.empty(len(values), dtype=torch.int64)
    left = torch.empty(len(values), len(factors), dtype=torch.uint8)
    fixed = fixed_numbers(grid)

    def part(start: int, end: int) -> None:
        kernel.search(
            start, end, v, w, importance is not None, low.ravel(), high.ravel(), tried, *fixed,
            only.numpy(), left.numpy(),
        )  # fmt: skip

    in_parts(part, len(values), torch.get_num_threads(), LEAST)
    return only, left.bool()


def fixed_numbers(grid: IntGrid) -> tuple[bool, float, float, float, float, float, int, float]:
    """What fixes `IntGrid.fit` and `IntGrid.levels` for the kernels.

    Whether it is symmetric; a factor of the largest magnitude, and what the scale is that divided by; the zero point of
    a symmetric grid; the lowest and the highest level; the dtype of scales, and the smallest one.
    """
    (lowest, highest), symmetric, full = grid.span, grid.convention is not None, grid.convention == "full_range"
    divisor = highest if full or not symmetric else 2 ** (grid.bits - 1) - 1
    stored = (DTYPES[grid.scale_dtype], smallest_scale(grid.scale_dtype))
    return (symmetric, 2.0 if full else 1.0, divisor, grid.middle, lowest, highest, *stored)
