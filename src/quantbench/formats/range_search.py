"""The search for a range of an integer grid that fits the values better than from smallest to largest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from quantbench.core.lazy import lazy_module
from quantbench.formats.grid import IntGrid
from quantbench.formats.grid_params import GridParams

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

NORM = 2.4
"""Errors are compared by the sum of |error|^2.4, as in the GPTQ authors' code."""


def smallest_error(
    grid: IntGrid,
    values: Tensor,
    bounds: tuple[Tensor, Tensor],
    factors: Iterable[float],
    importance: Tensor | None = None,
) -> GridParams:
    """The parameters of the range factor * bounds with the smallest sum of importance |error|^2.4; the first of equals.

    values [.., columns]; bounds [.., 1] each, one range for each run of columns; importance like values, or None for 1.
    """
    low, high = bounds
    best = grid.fit(low, high)
    least = torch.full_like(low, torch.inf)
    for factor in factors:
        tried = grid.fit(low * factor, high * factor)
        error = grid.values(grid.levels(values, tried), tried).sub_(values).abs_().pow_(NORM)
        if importance is not None:
            error.mul_(importance)
        total = error.sum(-1, keepdim=True)
        better = total < least
        least = torch.where(better, total, least)
        scale = torch.where(better, tried.scale, best.scale)
        if tried.zero is None or best.zero is None:
            best = GridParams(scale)
        else:
            best = GridParams(scale, torch.where(better, tried.zero, best.zero))
    return best
