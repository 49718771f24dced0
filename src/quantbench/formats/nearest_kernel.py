"""Rounding to nearest by the compiled kernel, on a processor: on integer grids, one for each group of columns in a row.

Each function gives None where there is no kernel for what is asked, or where the plain way has an error to raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from quantbench.core.finite import all_finite
from quantbench.core.lazy import lazy_module
from quantbench.formats.grid import IntGrid
from quantbench.formats.grid_params import GridParams
from quantbench.formats.range_kernel import fixed_numbers
from quantbench.kernels.loading import in_parts, kernels, on_processor

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

LEAST = 64  # rows for each thread


def nearest_codes(weight: Tensor, grid: IntGrid, columns: int) -> tuple[Tensor, GridParams] | None:
    """Codes uint8 [out, in] and parameters [out, g] of weight [out, in], each group being so many columns."""
    kernel = _kernel(weight, grid)
    if kernel is None:
        return None
    W, groups = _array(weight), -(-weight.shape[1] // columns)
    codes = torch.empty(weight.shape, dtype=torch.uint8)
    scales, zeros = torch.empty(len(weight), groups), torch.empty(len(weight), groups)
    given, out = (W, columns, fixed_numbers(grid)), (codes.numpy(), scales.numpy(), zeros.numpy())
    if not _each_row(lambda start, end: kernel.codes_of(start, end, *given, *out), len(weight)):
        return None
    return codes, GridParams(scales, None if grid.convention else zeros)


def nearest_values(codes: Tensor, params: GridParams, grid: IntGrid, columns: int) -> Tensor | None:
    """The values float32 [out, in] of codes, given the parameters [out, g] of their groups."""
    scale = params.scale
    kernel = None
    if on_processor(codes) and len(scale) == len(codes) and not scale.requires_grad:
        kernel = kernels("nearest")
    if kernel is None:
        return None
    zero = torch.full_like(scale, grid.middle) if params.zero is None else params.zero
    values = torch.empty(codes.shape)
    given = (codes.contiguous().numpy(), columns, _array(scale), _array(zero), values.numpy())
    _each_row(lambda start, end: kernel.values_of(start, end, *given), len(codes))
    return values


def nearest_errors(
    weight: Tensor, grid: IntGrid, columns: int, s: Tensor | None, limit: Tensor | None
) -> Tensor | None:
    """As `quantbench.formats.quantize.nearest_error`."""
    kernel = _kernel(weight, grid)
    if kernel is None or not (s is None or all_finite(s)):
        return None
    factors = torch.ones(weight.shape[1]) if s is None else s
    bound = torch.empty(0, 0) if limit is None else limit
    errors = torch.empty(weight.shape)
    given = (_array(weight), _array(factors), _array(bound), columns, fixed_numbers(grid), errors.numpy())
    if not _each_row(lambda start, end: kernel.errors_of(start, end, *given), len(weight)):
        return None
    return errors


def nearest_rows(x: Tensor, grid: IntGrid, ratio: float) -> Tensor | None:
    """The values float32 of x [.., features], each row on the grid of so much of its own range."""
    kernel = _kernel(x, grid)
    if kernel is None:
        return None
    rows = x.reshape(-1, x.shape[-1])
    values = torch.empty(rows.shape)
    given = (_array(rows), ratio, fixed_numbers(grid), values.numpy())
    if not _each_row(lambda start, end: kernel.rows_of(start, end, *given), len(rows)):
        return None
    return values.reshape(x.shape)


def _kernel(values: Tensor, grid: IntGrid) -> Any:
    """The compiled kernel, if it can round these values: those that are to be differentiated it cannot."""
    if not (on_processor(values) and grid.zero_rounding and values.numel()) or values.requires_grad:
        return None
    return kernels("nearest") if all_finite(values) else None


def _array(values: Tensor) -> Any:
    return values.detach().float().contiguous().numpy()


def _each_row(work: Callable[[int, int], Any], rows: int) -> bool:
    """Whether the work found everything finite, in all parts of the rows."""
    found: list[Any] = []
    in_parts(lambda start, end: found.append(work(start, end)), rows, torch.get_num_threads(), LEAST)
    return all(one is not False for one in found)
