"""Rounding a weight to the nearest values of a format."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from quantbench.formats.base import Format, default_group_index
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.nearest_kernel import nearest_codes, nearest_errors
from quantbench.formats.quantized_weight import QuantizedWeight, by_groups

if TYPE_CHECKING:
    from torch import Tensor


def quantize(weight: Tensor, format: Format) -> QuantizedWeight:
    """Fit the format's parameters to weight float32 [out, in] and take the nearest code for each element."""
    if _by_rows(format):
        found = nearest_codes(weight, format.grid, format.columns_per_group(weight.shape[1]))
        if found is not None:
            return QuantizedWeight(*found, format)
    return with_params(weight, format.params(weight), format)


def nearest_error(weight: Tensor, format: Format, s: Tensor | None = None, limit: Tensor | None = None) -> Tensor:
    """weight [out, in] less the values that rounding to nearest makes of it.

    s       [in]: what columns are multiplied by before, and the values divided by after; None: 1
    limit   [out, g] >= 0, one for each group: what the weight is clamped to after the multiplication; None: nothing
    """
    if _by_rows(format):
        found = nearest_errors(weight, format.grid, format.columns_per_group(weight.shape[1]), s, limit)
        if found is not None:
            return found
    rounded = weight if s is None else weight * s
    if limit is not None:
        index = default_group_index(weight.shape[1], format.columns_per_group(weight.shape[1])).to(weight.device)
        bound = limit[:, index]
        rounded = rounded.clamp(-bound, bound)
    values = quantize(rounded, format).dequantize()
    return weight - (values if s is None else values / s)


def with_params(weight: Tensor, params: GridParams, format: Format) -> QuantizedWeight:
    """The nearest code for each element of weight [out, in], given the parameters [out, g] of its groups."""
    return QuantizedWeight(by_groups(format.encode, weight, params, format), params, format)


def _by_rows(format: Format) -> TypeGuard[IntFormat]:
    """Whether groups of columns in a row have integers over their whole range, with a scale that is stored as it is."""
    if not isinstance(format, IntFormat) or format.double_quantization is not None:
        return False
    return format.range == "minmax" and format.blocks.rows == 1
