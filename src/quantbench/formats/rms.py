"""A uniform grid around zero whose range is a multiple of the root mean square, not of the largest value.

b bits stand for the values (2 c / (2^b - 1) - 1) * scale, c = 0 .. 2^b - 1, with scale = factor * rms(W). They lie
symmetrically about zero, which is not one of them: at 2 bits -1, -1/3, 1/3, 1 times the scale. This is the grid of
QuIP's authors ("qfn b", factor 2.4, one scale for the whole weight). It suits weights without outliers, such as rotated
ones; what lies beyond the scale is clipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.finite import all_finite
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import group_count
from quantbench.formats.grid import Bits, IntGrid, ScaleDtype
from quantbench.formats.grid_params import GridParams
from quantbench.formats.packed import PackedGrid

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@component
class RmsFormat(PackedGrid):
    """Weights as integers of `bits` bits in the range +- factor * rms of their group.

    group_size: input columns per scale, "channel" for one scale per output row, "tensor" for one in all ([1, 1]).
    """

    bits: Bits
    group_size: Annotated[int, Field(ge=1)] | Literal["channel", "tensor"]
    factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.4
    scale_dtype: ScaleDtype = "float16"

    @property
    def rows_per_scale(self) -> int | None:
        """One; all for "tensor"."""
        return None if self.group_size == "tensor" else 1

    def columns_per_group(self, in_features: int) -> int:
        """Columns that share a scale; the whole width for "channel" and "tensor"."""
        return self.group_size if isinstance(self.group_size, int) else in_features

    def params(self, weight: Tensor) -> GridParams:
        """Scales [out, groups] of weight [out, in], or [1, 1] for "tensor".

        Raises ValueError if the weight holds NaN or infinity, or if a scale overflows `scale_dtype`.
        """
        whole = weight.float().reshape(1, -1) if self.group_size == "tensor" else weight.float()
        columns = self.columns_per_group(whole.shape[1])
        rms = torch.stack([part.square().mean(1).sqrt() for part in torch.split(whole, columns, dim=1)], dim=1)
        scale = self.factor * rms
        stored = IntGrid(2, "narrow_range", self.scale_dtype).fit(-scale, scale).scale  # at 2 bits absmax itself
        if not all_finite(stored):
            raise ValueError(
                f"the weight {list(weight.shape)} holds NaN, infinity or values too large for scale_dtype="
                f"{self.scale_dtype!r}"
            )
        return GridParams(stored)

    def encode(self, weight: Tensor, params: GridParams) -> Tensor:
        """The nearest codes, uint8 of weight's shape."""
        qmax = 2**self.bits - 1
        levels: Tensor = (weight / params.scale + 1) * (qmax / 2)
        return levels.round_().clamp_(0, qmax).to(torch.uint8)

    def decode(self, codes: Tensor, params: GridParams) -> Tensor:
        """The float32 values of codes."""
        qmax = 2**self.bits - 1
        values: Tensor = (2 * codes.float() - qmax) * (params.scale / qmax)
        return values

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """Effective bits: bits + scale bits x scales / elements."""
        rows, width = shape
        scales = 1 if self.group_size == "tensor" else rows * group_count(width, self.columns_per_group(width))
        return self.bits + torch.finfo(getattr(torch, self.scale_dtype)).bits * scales / (rows * width)
