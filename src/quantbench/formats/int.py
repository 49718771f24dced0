"""Integer formats: uniform grids for weights (`IntFormat`) and for activations (`IntActivation`).

The grids and their symmetric and asymmetric conventions are those of `quantbench.formats.grid`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.core.finite import all_finite
from quantbench.core.lazy import lazy_module
from quantbench.core.mixing import Mixing
from quantbench.formats.blocks import BlockGrid, BlockRows, GroupSize, check_blocks
from quantbench.formats.double_quantization import DoubleQuantization
from quantbench.formats.grid import (
    Bits,
    ClipRatio,
    Convention,
    IntGrid,
    ScaleDtype,
    check_convention,
    containing_zero,
)
from quantbench.formats.grid_params import GridParams
from quantbench.formats.nearest_kernel import nearest_rows
from quantbench.formats.range_search import smallest_error

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

# The range search of the GPTQ authors' code: shrink both bounds by 1 - i/100 for i < 80, compare in the 2.4-norm.
_MSE_STEPS, _MSE_GRID = 80, 100


@component
class IntFormat(BlockGrid):
    """Weights as integers of `bits` bits, one scale (and, asymmetric, one b-bit zero point) per block.

    group_size: input columns per scale (the last group of a row may be short), "channel" for one scale per output row,
    or "tensor" for one scale in all, whose parameters have shape [1, 1] and broadcast over rows.
    block_rows: output rows that share a scale: blocks of block_rows x group_size weights (the last may be short).
    range: "minmax", or "mse", the GPTQ authors' search for a shrunken range among 80.
    zero_rounding: zero points are levels of b bits; false: real numbers, stored in scale_dtype.
    double_quantization: puts the scales, and real zero points, on small grids of their own; null: stored as they are.
    """

    bits: Bits
    group_size: GroupSize
    block_rows: BlockRows = 1
    symmetric: bool
    scale_convention: Convention | None = None
    range: Literal["minmax", "mse"] = "minmax"
    scale_dtype: ScaleDtype = "float16"
    zero_rounding: bool = True
    double_quantization: DoubleQuantization | None = None

    def __post_init__(self) -> None:
        check_convention(self.symmetric, self.scale_convention)
        check_blocks(self.group_size, self.block_rows)
        self._check_levels()

    def _check_levels(self) -> None:
        if not self.zero_rounding and self.symmetric:
            raise ConfigError("zero_rounding=false needs symmetric=false: a symmetric format has no zero point")
        if not self.zero_rounding and self.range == "mse":
            raise ConfigError("zero_rounding=false needs range=minmax: the mse search is for integer zero points")
        if self.double_quantization is None:
            return
        if self.group_size == "tensor":
            raise ConfigError(
                "double_quantization needs group_size=channel or a number: one scale in all is stored as it is"
            )
        if self.block_rows != 1:
            raise ConfigError(f"double_quantization has runs of rows already: block_rows={self.block_rows} must be 1")
        if self.double_quantization.zero_bits is not None and self.zero_rounding:
            raise ConfigError(
                "double_quantization.zero_bits needs zero_rounding=false: zero points are rounded once; or null"
            )

    @property
    def has_zero_points(self) -> bool:
        """Where the format is asymmetric."""
        return not self.symmetric

    def without_double_quantization(self) -> IntFormat:
        """The format with scales and zero points in `scale_dtype` or as levels."""
        return dataclasses.replace(self, double_quantization=None)

    @property
    def grid(self) -> IntGrid:
        """The arithmetic of one group."""
        return IntGrid(self.bits, self.scale_convention, self.scale_dtype, self.zero_rounding)

    def params(self, weight: Tensor, importance: Tensor | None = None) -> GridParams:
        """Scales and zero points [out, groups] of weight [out, in], or [1, 1] for "tensor".

        importance [in] >= 0: weights of the columns' errors in the search of range=mse; None: all the same. Raises
        ValueError if the weight holds NaN or infinity, or if a scale overflows `scale_dtype`.
        """
        if importance is not None and self.range != "mse":
            raise ValueError(f"importance weights the search of range='mse', and range={self.range!r} has none")
        groups = self.blocks.cut(weight.float())
        low, high = torch.aminmax(groups, dim=-1, keepdim=True)
        if not (all_finite(low) and all_finite(high)):
            raise ValueError(f"the weight {list(weight.shape)} holds NaN or infinity and cannot be quantized")
        low, high = containing_zero(low, high, self._empty_range)
        fitted = (
            self._smallest_error(groups, low, high, importance) if self.range == "mse" else self.grid.fit(low, high)
        )
        if not all_finite(fitted.scale):
            largest = float(torch.maximum(-low, high).amax())
            raise ValueError(
                f"weights up to {largest:.4g} need a scale that overflows scale_dtype={self.scale_dtype!r}"
            )
        by_block = GridParams(fitted.scale[..., 0], None if fitted.zero is None else fitted.zero[..., 0])
        params = self.blocks.spread(by_block, len(weight))
        return params if self.double_quantization is None else self.stored(params)

    def encode(self, weight: Tensor, params: GridParams) -> Tensor:
        """The nearest codes, uint8 of weight's shape."""
        return self.grid.levels(weight, params).to(torch.uint8)

    def decode(self, codes: Tensor, params: GridParams) -> Tensor:
        """The float32 values of codes; a symmetric format's zero point is implied."""
        return self.grid.values(codes.float(), params)

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """Effective bits: bits + (scales and zero points, as they are stored) / elements."""
        rows, groups = self.blocks.counts(shape)
        return self.bits + self.params_bits(rows, groups, self.has_zero_points) / (shape[0] * shape[1])

    @property
    def _empty_range(self) -> float:
        """The range of an all-zero group; 0 gives it the smallest scale there is and the zero point 0.

        With a real zero point in the middle 0 would not be on its grid, and with double quantization a scale that
        stands for nothing would widen the range of all scales in its run.
        """
        return 1.0 if self.zero_rounding and self.double_quantization is None else 0.0

    def _smallest_error(self, groups: Tensor, low: Tensor, high: Tensor, importance: Tensor | None) -> GridParams:
        """The parameters of the shrunken range with the smallest sum of |error|^2.4, for each group."""
        shrinks = [1 - i / _MSE_GRID for i in range(_MSE_STEPS)]
        if importance is not None:
            width = len(importance)
            rows = groups.shape[2] // min(self.columns_per_group(width), width)  # of a block
            importance = self.blocks.cut(importance.expand(rows, -1))
        return smallest_error(self.grid, groups, (low, high), shrinks, importance)


@component
class IntActivation:
    """Activations rounded to `bits` bits on the fly: per token or per tensor, with scales in float32.

    dynamic: the range is taken from the values themselves; otherwise it is fixed from calibration (`static_params`).
    clip_ratio: the range is so much of that of the values; what lies beyond saturates (QuaRot's authors: 0.9).
    """

    bits: Bits
    symmetric: bool
    scale_convention: Convention | None = None
    granularity: Literal["token", "tensor"]
    dynamic: bool
    clip_ratio: ClipRatio = 1.0

    def __post_init__(self) -> None:
        check_convention(self.symmetric, self.scale_convention)
        if self.granularity == "token" and not self.dynamic:
            raise ConfigError("granularity='token' needs dynamic=true: the tokens to come are not known in advance")

    @property
    def _grid(self) -> IntGrid:
        return IntGrid(self.bits, self.scale_convention, "float32")

    @property
    def mixing(self) -> Mixing:
        """BATCH for a range over all tokens that are read at once."""
        return Mixing.BATCH if self.dynamic and self.granularity == "tensor" else Mixing.NONE

    @property
    def needs(self) -> frozenset[str]:
        """The calibration statistics `static_params` reads."""
        return frozenset() if self.dynamic else frozenset({"minimum", "maximum"})

    def static_params(self, minimum: Tensor, maximum: Tensor) -> tuple[Tensor, Tensor | None]:
        """(scale [], zero [] or None if symmetric) for inputs whose channels range over minimum, maximum [in]."""
        fitted = self._fit(minimum.float().amin(), maximum.float().amax())
        return fitted.scale, fitted.zero

    def fake_quantize(self, x: Tensor, scale: Tensor | None = None, zero: Tensor | None = None) -> Tensor:
        """Round x [..., features] to its grid, in x's dtype, computed in float32; NaN stays NaN.

        scale and zero are those of `static_params`; ValueError if they are given to a dynamic format or missing.
        """
        if self.granularity == "token" and scale is None and zero is None:
            found = nearest_rows(x, self._grid, self.clip_ratio)
            if found is not None:
                return found.to(x.dtype)
        values = x.float()
        if self.dynamic:
            if scale is not None or zero is not None:
                raise ValueError("a dynamic activation format takes its range from the values: pass no scale or zero")
            low, high = values.aminmax(dim=-1, keepdim=True) if self.granularity == "token" else values.aminmax()
            params = self._fit(low, high)
        elif scale is None or (zero is None) != self.symmetric:
            wanted = "scale and no zero" if self.symmetric else "scale and zero"
            raise ValueError(f"a static activation format needs the {wanted} that static_params returned")
        else:
            params = GridParams(scale, zero)
        return self._grid.values(self._grid.levels(values, params), params).to(x.dtype)

    def _fit(self, low: Tensor, high: Tensor) -> GridParams:
        low, high = containing_zero(low, high)
        return self._grid.fit(low * self.clip_ratio, high * self.clip_ratio)
