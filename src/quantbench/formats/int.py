"""Integer formats: uniform grids for weights (`IntFormat`) and for activations (`IntActivation`).

The grids and their symmetric and asymmetric conventions are those of `quantbench.formats.grid`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from quantbench.component import component
from quantbench.errors import ConfigError
from quantbench.formats.base import GridParams
from quantbench.formats.blocks import BlockGrid, BlockRows, GroupSize, check_blocks
from quantbench.formats.grid import Bits, Convention, IntGrid, ScaleDtype, check_convention, containing_zero

# The range search of the GPTQ authors' code: shrink both bounds by 1 - i/100 for i < 80, compare in the 2.4-norm.
_MSE_STEPS, _MSE_GRID, _MSE_NORM = 80, 100, 2.4


@component
class IntFormat(BlockGrid):
    """Weights as integers of `bits` bits, one scale (and, asymmetric, one b-bit zero point) per block.

    group_size: input columns per scale (the last group of a row may be short), "channel" for one scale per output row,
    or "tensor" for one scale in all, whose parameters have shape [1, 1] and broadcast over rows.
    block_rows: output rows that share a scale: blocks of block_rows x group_size weights (the last may be short).
    range: "minmax", or "mse", the GPTQ authors' search for a shrunken range (80 passes over the weight).
    """

    bits: Bits
    group_size: GroupSize
    block_rows: BlockRows = 1
    symmetric: bool
    scale_convention: Convention | None = None
    range: Literal["minmax", "mse"] = "minmax"
    scale_dtype: ScaleDtype = "float16"

    def __post_init__(self) -> None:
        check_convention(self.symmetric, self.scale_convention)
        check_blocks(self.group_size, self.block_rows)

    @property
    def _grid(self) -> IntGrid:
        return IntGrid(self.bits, self.scale_convention, self.scale_dtype)

    def params(self, weight: Tensor) -> GridParams:
        """Scales and zero points [out, groups] of weight [out, in], or [1, 1] for "tensor".

        Raises ValueError if the weight holds NaN or infinity, or if a scale overflows `scale_dtype`.
        """
        groups = self.blocks.cut(weight.float())
        low, high = torch.aminmax(groups, dim=-1, keepdim=True)
        if not bool((low.isfinite() & high.isfinite()).all()):
            raise ValueError(f"the weight {list(weight.shape)} holds NaN or infinity and cannot be quantized")
        low, high = containing_zero(low, high)
        fitted = self._smallest_error(groups, low, high) if self.range == "mse" else self._grid.fit(low, high)
        if not bool(fitted.scale.isfinite().all()):
            largest = float(torch.maximum(-low, high).amax())
            raise ValueError(
                f"weights up to {largest:.4g} need a scale that overflows scale_dtype={self.scale_dtype!r}"
            )
        by_block = GridParams(fitted.scale[..., 0], None if fitted.zero is None else fitted.zero[..., 0])
        return self.blocks.spread(by_block, len(weight))

    def encode(self, weight: Tensor, params: GridParams) -> Tensor:
        """The nearest codes, uint8 of weight's shape."""
        return self._grid.levels(weight, params).to(torch.uint8)

    def decode(self, codes: Tensor, params: GridParams) -> Tensor:
        """The float32 values of codes; a symmetric format's zero point is implied."""
        return self._grid.values(codes.float(), params)

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """Effective bits: bits + (scale bits + zero-point bits) x scales / elements."""
        per_scale = torch.finfo(getattr(torch, self.scale_dtype)).bits + (0 if self.symmetric else self.bits)
        return self.bits + per_scale * self.blocks.count(shape) / (shape[0] * shape[1])

    def _smallest_error(self, groups: Tensor, low: Tensor, high: Tensor) -> GridParams:
        """The parameters of the shrunken range with the smallest sum of |error|^2.4, for each group."""
        grid = self._grid
        best = grid.fit(low, high)
        least = torch.full_like(low, torch.inf)
        for i in range(_MSE_STEPS):
            shrink = 1 - i / _MSE_GRID
            tried = grid.fit(low * shrink, high * shrink)
            error = grid.values(grid.levels(groups, tried), tried).sub_(groups).abs_().pow_(_MSE_NORM)
            total = error.sum(-1, keepdim=True)
            better = total < least
            least = torch.where(better, total, least)
            scale = torch.where(better, tried.scale, best.scale)
            if tried.zero is None or best.zero is None:
                best = GridParams(scale)
            else:
                best = GridParams(scale, torch.where(better, tried.zero, best.zero))
        return best


@component
class IntActivation:
    """Activations rounded to `bits` bits on the fly: per token or per tensor, with scales in float32.

    dynamic: the range is taken from the values themselves; otherwise it is fixed from calibration (`static_params`).
    """

    bits: Bits
    symmetric: bool
    scale_convention: Convention | None = None
    granularity: Literal["token", "tensor"]
    dynamic: bool

    def __post_init__(self) -> None:
        check_convention(self.symmetric, self.scale_convention)
        if self.granularity == "token" and not self.dynamic:
            raise ConfigError("granularity='token' needs dynamic=true: the tokens to come are not known in advance")

    @property
    def _grid(self) -> IntGrid:
        return IntGrid(self.bits, self.scale_convention, "float32")

    @property
    def needs(self) -> frozenset[str]:
        """The calibration statistics `static_params` reads."""
        return frozenset() if self.dynamic else frozenset({"minimum", "maximum"})

    def static_params(self, minimum: Tensor, maximum: Tensor) -> tuple[Tensor, Tensor | None]:
        """(scale [], zero [] or None if symmetric) for inputs whose channels range over minimum, maximum [in]."""
        fitted = self._grid.fit(*containing_zero(minimum.float().amin(), maximum.float().amax()))
        return fitted.scale, fitted.zero

    def fake_quantize(self, x: Tensor, scale: Tensor | None = None, zero: Tensor | None = None) -> Tensor:
        """Round x [..., features] to its grid, in x's dtype, computed in float32; NaN stays NaN.

        scale and zero are those of `static_params`; ValueError if they are given to a dynamic format or missing.
        """
        values = x.float()
        if self.dynamic:
            if scale is not None or zero is not None:
                raise ValueError("a dynamic activation format takes its range from the values: pass no scale or zero")
            low, high = values.aminmax(dim=-1, keepdim=True) if self.granularity == "token" else values.aminmax()
            params = self._grid.fit(*containing_zero(low, high))
        elif scale is None or (zero is None) != self.symmetric:
            wanted = "scale and no zero" if self.symmetric else "scale and zero"
            raise ValueError(f"a static activation format needs the {wanted} that static_params returned")
        else:
            params = GridParams(scale, zero)
        return self._grid.values(self._grid.levels(values, params), params).to(x.dtype)
