"""Rounding a weight to the nearest values of a format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantbench.formats.base import Format
from quantbench.formats.grid_params import GridParams
from quantbench.formats.quantized_weight import QuantizedWeight, by_groups

if TYPE_CHECKING:
    from torch import Tensor


def quantize(weight: Tensor, format: Format) -> QuantizedWeight:
    """Fit the format's parameters to weight float32 [out, in] and take the nearest code for each element."""
    return with_params(weight, format.params(weight), format)


def with_params(weight: Tensor, params: GridParams, format: Format) -> QuantizedWeight:
    """The nearest code for each element of weight [out, in], given the parameters [out, g] of its groups."""
    return QuantizedWeight(by_groups(format.encode, weight, params, format), params, format)
