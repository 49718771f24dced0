"""The grids of keys, or of values, in a quantized key-value cache: what is stored of rows x [.., n]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quantbench.core.finite import all_finite
from quantbench.core.lazy import lazy_module
from quantbench.formats.activation import FormatActivation
from quantbench.formats.base import Format, group_count
from quantbench.formats.grid import Convention, IntGrid, ScaleDtype, containing_zero

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@dataclass(frozen=True)
class KVGrid:
    """Integers of `bits` bits, or any format of weights; the options are those of `quantbench.formats.kv.KVCache`."""

    bits: int | None
    group_size: int | Literal["head"] | None
    symmetric: bool
    scale_convention: Convention | None
    scale_dtype: ScaleDtype
    format: Format | None

    def group(self, width: int) -> int:
        """How many neighbours share a scale in a row of this width."""
        if self.format is not None:
            return self.format.columns_per_group(width)
        return self.group_size if isinstance(self.group_size, int) else width

    def row_bits(self, width: int) -> float:
        """Bits an element of a row of this width takes on average, scales and offsets counted."""
        if self.format is not None:
            return self.format.bits_per_weight((1, width))
        assert self.bits is not None
        overhead = torch.finfo(getattr(torch, self.scale_dtype)).bits * (1 if self.symmetric else 2)
        return self.bits + overhead * group_count(width, self.group(width)) / width

    def stored(self, x: Tensor) -> Tensor:
        """x [.., n], each group of neighbours on a grid of its own, in x's dtype.

        Raises ValueError for NaN, infinity, and scales that overflow `scale_dtype`.
        """
        if self.format is not None:
            found = FormatActivation(format=self.format, dynamic=True).fake_quantize(x)
            if not all_finite(found):
                raise ValueError("NaN or infinity")
            return found
        width = x.shape[-1]
        group = self.group(width)
        whole = width - width % group
        groups = x[..., :whole].reshape(*x.shape[:-1], -1, group).float()
        parts = [self._fit(groups).flatten(-2)] if whole else []
        parts += [self._fit(x[..., whole:].float())] if whole < width else []
        return torch.cat(parts, dim=-1).to(x.dtype)

    def _fit(self, x: Tensor) -> Tensor:
        """x float32 [.., g], each row on its grid."""
        assert self.bits is not None
        low, high = x.aminmax(dim=-1, keepdim=True)
        if self.symmetric:
            grid = IntGrid(self.bits, self.scale_convention, self.scale_dtype)
            params = grid.fit(*containing_zero(low, high))
            values = grid.values(grid.levels(x, params), params)
        else:
            dtype = getattr(torch, self.scale_dtype)
            qmax = 2**self.bits - 1
            scale = ((high - low) / qmax).to(dtype).float().clamp(min=2.0**-24)
            low = low.to(dtype).float()
            values = ((x - low) / scale).round_().clamp_(0, qmax).mul_(scale).add_(low)
        if not all_finite(values):
            raise ValueError(f"NaN, infinity, or a range that overflows scale_dtype={self.scale_dtype!r}")
        return values
