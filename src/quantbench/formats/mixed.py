"""Integers whose groups of columns have different numbers of bits, all rows the same in one group.

A group of b >= 2 bits is asymmetric: a scale and a b-bit zero point for each row (formats/grid.py). A group of one bit
stands for the two values m - a and m + a, with m the mean of a row's weights in the group and a the mean of their
magnitudes, as in the SliM-LLM authors' code (the least-squares choice for a would be the mean of |w - m|). In the form
(c - zero) * scale that is scale = 2 a and zero = 1/2 - m / scale, which lies between 0 and 1 and is stored as the
scale is.

A rounding makes such a format for one weight, once it has decided the bits; they are stored with the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import FormatDefaults
from quantbench.formats.grid import IntGrid, ScaleDtype
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.packing import pack_bits, unpack_bits

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

BITS_OF_BITS = 8
"""What storing a group's number of bits is counted as."""


@component
class MixedIntFormat(FormatDefaults):
    """group_bits: 1 to 8 for each group of group_size input columns (the last may be short)."""

    group_bits: tuple[Annotated[int, Field(ge=1, le=8)], ...]
    group_size: Annotated[int, Field(ge=1)]
    scale_dtype: ScaleDtype = "float16"

    @property
    def has_zero_points(self) -> bool:
        """Yes, in every group."""
        return True

    def columns_per_group(self, in_features: int) -> int:  # noqa: ARG002 - contract
        """The same in all groups, whatever their bits."""
        return self.group_size

    def grid(self, bits: int) -> IntGrid:
        """The arithmetic of groups of b >= 2 bits."""
        return IntGrid(bits, None, self.scale_dtype)

    def params(self, weight: Tensor) -> GridParams:
        """Each group's scales, zero points and highest level. ValueError as `group_params`, and for another width."""
        parts = torch.split(weight, self.group_size, dim=1)
        if len(parts) != len(self.group_bits):
            raise ValueError(f"a weight {weight.shape[1]} columns wide does not have {len(self.group_bits)} groups")
        groups = zip(parts, self.group_bits, strict=True)
        return GridParams.join([self.group_params(part, bits) for part, bits in groups])

    def group_params(self, weight: Tensor, bits: int) -> GridParams:
        """The parameters of one group W [out, g] of b bits. Raises ValueError as `IntFormat.params` does."""
        row = IntFormat(bits=max(bits, 2), group_size="channel", symmetric=False, scale_dtype=self.scale_dtype)
        fitted = row.params(weight)
        return self.with_qmax(fitted if bits > 1 else self._two_values(weight.float()), bits)

    def with_qmax(self, params: GridParams, bits: int) -> GridParams:
        """The parameters of a group of b bits, with its highest level."""
        return GridParams(params.scale, params.zero, params.scale.new_full((1, 1), 2**bits - 1))

    def _two_values(self, weight: Tensor) -> GridParams:
        m, a = weight.mean(1, keepdim=True), weight.abs().mean(1, keepdim=True)
        scale = self.grid(1).fit(m - a, m + a).scale
        return GridParams(scale, (0.5 - m / scale).to(self._dtype).float())

    def encode(self, weight: Tensor, params: GridParams) -> Tensor:
        """The nearest codes, uint8 of weight's shape."""
        zero, qmax = _zero(params), _qmax(params)
        scaled = weight / params.scale
        levels = torch.where(qmax > 1, scaled.round() + zero, (scaled + zero).round())
        return torch.minimum(levels.clamp_(min=0), qmax).to(torch.uint8)

    def decode(self, codes: Tensor, params: GridParams) -> Tensor:
        """The float32 values of codes."""
        return (codes.float() - _zero(params)) * params.scale

    def pack(self, codes: Tensor, params: GridParams) -> dict[str, Tensor]:
        """For every b there is, codes and zero points of the groups of b bits, packed to b bits each; all scales."""
        stored = {"scale": params.scale.to(self._dtype)}
        for bits in sorted(set(self.group_bits)):
            stored[f"codes{bits}"] = pack_bits(codes[:, self._columns(bits, codes.shape[1])], bits)
            zero = _zero(params)[:, self._groups(bits)]
            stored[f"zero{bits}"] = pack_bits(zero.to(torch.uint8), bits) if bits > 1 else zero.to(self._dtype)
        return stored

    def unpack(self, stored: dict[str, Tensor], shape: tuple[int, int]) -> tuple[Tensor, GridParams]:
        """Codes and parameters exactly as `pack` was given them."""
        codes, scale = torch.empty(shape, dtype=torch.uint8), stored["scale"].float()
        zero = torch.empty_like(scale)
        for bits in sorted(set(self.group_bits)):
            columns, groups = self._columns(bits, shape[1]), self._groups(bits)
            codes[:, columns] = unpack_bits(stored[f"codes{bits}"], bits, (shape[0], len(columns)))
            packed = stored[f"zero{bits}"]
            zero[:, groups] = unpack_bits(packed, bits, (shape[0], len(groups))).float() if bits > 1 else packed.float()
        qmax = torch.tensor([[2.0**bits - 1 for bits in self.group_bits]])
        return codes, GridParams(scale, zero, qmax)

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """Effective bits: codes, scales, zero points, and the number of bits of each group."""
        rows, width = shape
        per_scale = torch.finfo(self._dtype).bits
        row = sum(len(self._columns(bits, width)) * bits for bits in set(self.group_bits))
        row += sum(per_scale + (bits if bits > 1 else per_scale) for bits in self.group_bits)
        return row / width + BITS_OF_BITS * len(self.group_bits) / (rows * width)

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.scale_dtype)
        return dtype

    def _groups(self, bits: int) -> Tensor:
        """The groups with so many bits, int64."""
        return _where(self.group_bits, bits)

    def _columns(self, bits: int, width: int) -> Tensor:
        """The columns of the groups with so many bits, int64."""
        per_column = [self.group_bits[j // self.group_size] for j in range(width)]
        return _where(per_column, bits)


def _where(values: Sequence[int], wanted: int) -> Tensor:
    """The places of a value, int64."""
    return torch.tensor([i for i, value in enumerate(values) if value == wanted], dtype=torch.int64)


def _zero(params: GridParams) -> Tensor:
    assert params.zero is not None
    return params.zero


def _qmax(params: GridParams) -> Tensor:
    assert params.qmax is not None
    return params.qmax
