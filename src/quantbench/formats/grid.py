"""The arithmetic of integer grids: what weights' and activations' integer formats share.

A grid of b bits stands for the values (level - zero) * scale. Zero is always one of them.

    asymmetric                 scale = (max - min) / (2^b - 1)     zero = round(-min / scale)   levels 0 .. 2^b - 1
    symmetric full_range       scale = 2 absmax / (2^b - 1)        zero = 2^(b-1)               levels 0 .. 2^b - 1
    symmetric narrow_range     scale = absmax / (2^(b-1) - 1)      zero = 2^(b-1)               levels 1 .. 2^b - 1
    symmetric twos_complement  scale = absmax / (2^(b-1) - 1)      zero = 2^(b-1)               levels 0 .. 2^b - 1

full_range is the GPTQ authors' convention: it reaches one level further down than up (at 4 bits with absmax 1 from
-1.067 to .933). narrow_range, the SmoothQuant authors' convention, keeps both ends and gives up one level.
twos_complement, the QuaRot authors' convention, has all levels -2^(b-1) .. 2^(b-1) - 1 of a signed integer at
narrow_range's scale. The lowest lies beyond -absmax: it serves where the range was clipped, or a weight has moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from quantbench.core.errors import ConfigError
from quantbench.core.lazy import lazy_module
from quantbench.formats.grid_params import GridParams

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

Bits = Annotated[int, Field(ge=2, le=8)]
Convention = Literal["full_range", "narrow_range", "twos_complement"]
ScaleDtype = Literal["float16", "bfloat16", "float32"]

ClipRatio = Annotated[float, Field(gt=0, le=1)]
"""How much of the range of activations a grid covers."""

# Smallest scale of each dtype. Subnormals are kept for float16 only: float32 arithmetic may flush its own to zero.
_SMALLEST_SCALE: dict[ScaleDtype, float] = {"float16": 2.0**-24, "bfloat16": 2.0**-126, "float32": 2.0**-126}


@dataclass(frozen=True)
class IntGrid:
    """The arithmetic of one grid; convention None means asymmetric.

    zero_rounding: the zero point is a level; otherwise a real number, stored in scale_dtype, and zero no longer one of
    the values.
    """

    bits: int
    convention: Convention | None
    scale_dtype: ScaleDtype
    zero_rounding: bool = True

    def fit(self, low: Tensor, high: Tensor) -> GridParams:
        """Scale and zero point for ranges [low, high], of any shape, that contain 0 and more than 0.

        A scale too small for the dtype becomes its smallest one, a scale too large becomes infinite.
        """
        qmax = 2**self.bits - 1
        if self.convention is None:
            scale = self._stored((high - low) / qmax)
            zero = (-low / scale).clamp_(0, qmax)
            if self.zero_rounding:
                return GridParams(scale, zero.round_())
            return GridParams(scale, zero.to(getattr(torch, self.scale_dtype)).float())
        absmax = torch.maximum(-low, high)
        if self.convention == "full_range":
            return GridParams(self._stored(2 * absmax / qmax))
        return GridParams(self._stored(absmax / (2 ** (self.bits - 1) - 1)))

    def _stored(self, scale: Tensor) -> Tensor:
        return stored_scale(scale, self.scale_dtype)

    def levels(self, values: Tensor, params: GridParams) -> Tensor:
        """The nearest levels, still float32: integers from 0 (narrow range: 1) to 2^b - 1."""
        zero = self.middle if params.zero is None else params.zero
        levels = values / params.scale
        levels = levels.round_().add_(zero) if self.zero_rounding else levels.add_(zero).round_()
        return levels.clamp_(*self.span)

    def values(self, levels: Tensor, params: GridParams) -> Tensor:
        """The float32 values of levels."""
        zero = self.middle if params.zero is None else params.zero
        return (levels - zero).mul_(params.scale)

    @property
    def span(self) -> tuple[int, int]:
        """The lowest and the highest level."""
        return (1 if self.convention == "narrow_range" else 0), 2**self.bits - 1

    @property
    def middle(self) -> float:
        """The zero point of a symmetric grid."""
        return 2.0 ** (self.bits - 1)


def stored_scale(scale: Tensor, dtype: ScaleDtype) -> Tensor:
    """Scales > 0 as they will be stored: rounded first, so that zero points and codes belong to the stored value.

    One too small for the dtype becomes its smallest one, one too large becomes infinite.
    """
    return scale.to(getattr(torch, dtype)).float().clamp(min=_SMALLEST_SCALE[dtype])


def smallest_scale(dtype: ScaleDtype) -> float:
    """The smallest scale that is stored."""
    return _SMALLEST_SCALE[dtype]


def containing_zero(low: Tensor, high: Tensor, empty: float = 1.0) -> tuple[Tensor, Tensor]:
    """Widen ranges so that they contain 0; the empty range of all zeros becomes [-empty, empty]."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    zeros = low == high
    return low.masked_fill(zeros, -empty), high.masked_fill(zeros, empty)


def check_convention(symmetric: bool, convention: Convention | None) -> None:
    """Raise ConfigError unless a symmetric format, and no other, says which convention it follows."""
    if symmetric and convention is None:
        raise ConfigError("symmetric=true needs scale_convention: full_range, narrow_range or twos_complement")
    if not symmetric and convention is not None:
        raise ConfigError(f"scale_convention={convention!r} needs symmetric=true; with symmetric=false it must be null")
