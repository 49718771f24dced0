"""Rounding a weight to the nearest values of a format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantbench.formats.base import Format, default_group_index
from quantbench.formats.grid_params import GridParams
from quantbench.formats.quantized_weight import QuantizedWeight

if TYPE_CHECKING:
    from torch import Tensor


def quantize(weight: Tensor, format: Format) -> QuantizedWeight:
    """Fit the format's parameters to weight float32 [out, in] and take the nearest code for each element."""
    return with_params(weight, format.params(weight), format)


def with_params(weight: Tensor, params: GridParams, format: Format) -> QuantizedWeight:
    """The nearest code for each element of weight [out, in], given the parameters [out, g] of its groups."""
    width = weight.shape[1]
    group_index = default_group_index(width, format.columns_per_group(width)).to(weight.device)
    return QuantizedWeight(format.encode(weight, params.columns(group_index)), params, format)
