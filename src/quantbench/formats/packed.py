"""How most formats store a weight: packed codes, scales in a dtype, zero points as levels or in that dtype."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quantbench.core.lazy import lazy_module
from quantbench.formats.base import FormatDefaults, group_count
from quantbench.formats.double_quantization import DoubleQuantization, ScaleStorage
from quantbench.formats.grid_params import GridParams
from quantbench.formats.packing import pack_bits, unpack_bits

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


class PackedGrid(FormatDefaults):
    """How most formats store a weight: codes and zero points of `code_bits` bits, scales in `scale_dtype`.

    A format that inherits from it has the attribute `scale_dtype` and either `bits` or a `code_bits` of its own.
    zero_rounding  whether zero points are levels; if not, they are real numbers, stored in `scale_dtype`
    double_quantization  puts scales and zero points on small grids of their own, which `stored` does
    """

    scale_dtype: str
    zero_rounding: bool = True
    double_quantization: DoubleQuantization | None = None

    @property
    def code_bits(self) -> int:
        """Bits of a code."""
        return int(self.bits)  # type: ignore[attr-defined]

    @property
    def _scales(self) -> ScaleStorage:
        dtype, double = getattr(torch, self.scale_dtype), self.double_quantization
        return ScaleStorage(dtype) if double is None else ScaleStorage(dtype, double.scale_bits, double.group_size)

    @property
    def _zeros(self) -> ScaleStorage:
        dtype, double = getattr(torch, self.scale_dtype), self.double_quantization
        if double is not None and double.zero_bits is not None:
            return ScaleStorage(dtype, double.zero_bits, double.group_size)
        return ScaleStorage(dtype, self.code_bits if self.zero_rounding else None)

    def stored(self, params: GridParams) -> GridParams:
        """Parameters as `unpack` will give them: what a rounding changes in them passes through here before use."""
        scale, scale_runs = self._scales.fit(params.scale)
        zero, zero_runs = (None, None) if params.zero is None else self._zeros.fit(params.zero)
        return replace(params, scale=scale, zero=zero, scale_runs=scale_runs, zero_runs=zero_runs)

    def params_bits(self, rows: int, groups: int, has_zero: bool) -> int:
        """Bits that the scales and zero points of `rows` output rows and `groups` groups of columns take."""
        return self._scales.size(rows, groups) + (self._zeros.size(rows, groups) if has_zero else 0)

    def pack(self, codes: Tensor, params: GridParams) -> dict[str, Tensor]:
        """The codes packed to bits, and scales and zero points as `stored` left them."""
        stored = {"codes": pack_bits(codes, self.code_bits)}
        stored |= self._scales.pack("scale", params.scale, params.scale_runs)
        if params.zero is not None:
            stored |= self._zeros.pack("zero", params.zero, params.zero_runs)
        return stored

    def unpack(self, stored: dict[str, Tensor], shape: tuple[int, int]) -> tuple[Tensor, GridParams]:
        """Codes and parameters exactly as `pack` was given them."""
        groups = group_count(shape[1], self.columns_per_group(shape[1]))  # type: ignore[attr-defined]
        scale, scale_runs = self._scales.unpack("scale", stored, shape[0], groups)
        zero, zero_runs = None, None
        if "zero" in stored:
            zero, zero_runs = self._zeros.unpack("zero", stored, *scale.shape)
        params = GridParams(scale, zero, scale_runs=scale_runs, zero_runs=zero_runs)
        return unpack_bits(stored["codes"], self.code_bits, shape), params
