"""Fake quantization: an integer format as a differentiable function of a weight, its range, and offsets to round with.

Symbols    W [out, in]  a weight            V [out, in]  offsets, in units of a step; absent means 0
           l, h [out, g, 1]  range of each group of columns, l <= 0 <= h
           s, z [out, g, 1]  scale and zero point that the format fits to (l, h), as they are stored
           q [out, in]  levels relative to zero: clamp(round(W / s + V) + z) - z       Q = s q, the dequantized weight

Gradients  s and z are rounded, round(.) and the storing of s have the gradient of the identity (straight through):
           dQ/dV = s c      dQ/dW = c      dQ/ds = q - c W / s      dQ/dz = -s (1 - c)
           where c is 1 inside the grid and 0 where the level was clamped. ds/d(l, h) is that of the exact scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format
from quantbench.formats.grid import IntGrid, containing_zero
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.formats.straight_through import autograd_function, straight_through
from quantbench.rounding.base import unfit_format

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

Range: TypeAlias = "tuple[Tensor, Tensor]"


def unlearnable(format: Format | None) -> str | None:
    """Why the ranges of a format cannot be learned; None if they can.

    A format is tried on a small weight: its scales must be those of the plain minimum and maximum of each group.
    """
    if format is None:
        return None
    if not isinstance(format, IntFormat):
        return f"{type(format).__name__} is no integer format (quantbench.formats.int.IntFormat)"
    if format.range != "minmax":
        return f"its range is learned, so that range={format.range} has no effect: set range: minmax"
    width = 64 if isinstance(format.group_size, str) else 2 * format.group_size
    probe = torch.linspace(-1, 2, 8 * width).sin().reshape(8, width)
    quantizer, expected = FakeQuantizer(format, probe.shape), format.params(probe)
    found = quantizer.params(quantizer.range(probe))
    same = _equal(found.scale, expected.scale) and _equal(found.zero, expected.zero)
    return None if same else "its scales are not those of the minimum and maximum of each group of columns"


def refuse_unlearnable(recipe: Any, method: str) -> str | None:
    """Why `method` cannot learn ranges of the weight formats of a recipe, those of its rules included; None if it can.

    The message names the key.
    """
    return unfit_format(
        recipe, lambda grid: None if (reason := unlearnable(grid)) is None else f"{method} cannot use it: {reason}"
    )


def _equal(found: Tensor | None, expected: Tensor | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return torch.equal(found[..., 0], expected)


@dataclass(frozen=True)
class FakeQuantizer:
    """The grid of `format` for a weight of `shape`; see the symbols of this file."""

    format: IntFormat
    shape: torch.Size

    def range(self, weight: Tensor) -> Range:
        """(l, h): the smallest and the largest weight of each group, widened to contain 0. Differentiable."""
        grouped = self._grouped(weight)
        return containing_zero(grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True))

    def params(self, limits: Range) -> GridParams:
        """(s, z) for a range, each [out, g, 1]; z is None where the format has none. Differentiable."""
        low, high = limits
        fitted = self._grid.fit(low.detach(), high.detach())
        scale = straight_through(fitted.scale, self._exact_scale(low, high))
        zero = None if fitted.zero is None else straight_through(fitted.zero, -low / scale)
        return GridParams(scale, zero)

    def values(self, weight: Tensor, limits: Range, offset: Tensor | None = None) -> Tensor:
        """Q float32 [out, in]. Differentiable in all arguments."""
        params = self.params(limits)
        offsets = None if offset is None else self._grouped(offset)
        zero = params.scale.new_zeros(()) if params.zero is None else params.zero
        function: Any = autograd_function(_OnGrid)
        on_grid: Tensor = function.apply(self, self._grouped(weight), offsets, params.scale, zero)
        return self._ungrouped(on_grid)

    def quantized(self, weight: Tensor, limits: Range, offset: Tensor | None = None) -> QuantizedWeight:
        """What is stored: it dequantizes to `values` exactly."""
        with torch.no_grad():
            params = self.params(limits)
            shifted = _shifted(self._grouped(weight), None if offset is None else self._grouped(offset), params.scale)
            codes = self._ungrouped(self.format.encode(shifted, params))
        flat = GridParams(params.scale[..., 0], None if params.zero is None else params.zero[..., 0])
        return QuantizedWeight(codes.contiguous(), flat, self.format)

    @property
    def _grid(self) -> IntGrid:
        return IntGrid(self.format.bits, self.format.scale_convention, self.format.scale_dtype)

    def _exact_scale(self, low: Tensor, high: Tensor) -> Tensor:
        """The scale before it is rounded to its dtype: see quantbench.formats.grid."""
        convention = self.format.scale_convention
        qmax: int = 2**self.format.bits - 1
        if convention is None:
            return (high - low) / qmax
        return torch.maximum(-low, high) * (2 / qmax if convention == "full_range" else 2 / (qmax - 1))

    def _grouped(self, weight: Tensor) -> Tensor:
        """[out, g, columns], a short last group filled up with zeros; [1, 1, out * in] where one scale serves all."""
        if self.format.group_size == "tensor":
            return weight.reshape(1, 1, -1)
        rows, width = self.shape
        missing = -width % self.format.columns_per_group(width)
        whole = torch.nn.functional.pad(weight, (0, missing)) if missing else weight
        return whole.reshape(rows, -1, self.format.columns_per_group(width))

    def _ungrouped(self, groups: Tensor) -> Tensor:
        rows, width = self.shape
        return groups.reshape(rows, -1)[:, :width]


def fake_quantizer(format: Format, weight: Tensor) -> FakeQuantizer:
    """The grid of an integer format for a weight. Raises ValueError for other formats, and as `format.params` does."""
    if not isinstance(format, IntFormat):
        raise ValueError(f"the range of {type(format).__name__} cannot be learned: choose an integer format")
    format.params(weight)
    return FakeQuantizer(format, weight.shape)


def _shifted(weight: Tensor, offset: Tensor | None, scale: Tensor) -> Tensor:
    return weight if offset is None else torch.addcmul(weight, offset, scale)


class _OnGrid:
    """Q for grouped W, V [out, g, columns] and s, z [out, g, 1]; z is a scalar that nothing learns if implied."""

    @staticmethod
    def forward(
        ctx: Any, quantizer: FakeQuantizer, weight: Tensor, offset: Tensor | None, scale: Tensor, zero: Tensor
    ) -> Tensor:
        params = GridParams(scale, zero if zero.dim() else None)
        shifted = _shifted(weight, offset, scale)
        values = quantizer.format.decode(quantizer.format.encode(shifted, params), params)
        # Inside the grid the error is half a step at most; a little more is the rounding of float32.
        inside = (values - shifted).abs_() <= 0.5001 * scale
        ctx.save_for_backward(weight, values, inside, scale)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0]
        weight, values, inside, scale = ctx.saved_tensors
        _, for_weight, for_offset, for_scale, for_zero = ctx.needs_input_grad
        passed = gradient * inside if for_weight or for_offset or for_scale else None
        scale_gradient = zero_gradient = None
        if for_scale:
            along = (gradient * values).sub_(passed * weight)
            scale_gradient = (along.sum(-1, keepdim=True) / scale).sum_to_size(scale.shape)
        if for_zero:
            zero_gradient = (gradient * ~inside).sum(-1, keepdim=True).mul_(-scale)
        offset_gradient = passed * scale if for_offset else None
        return None, passed if for_weight else None, offset_gradient, scale_gradient, zero_gradient
