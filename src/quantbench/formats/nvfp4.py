"""NVFP4: groups of 16 four-bit floats, a scale of eight bits for each, and one scale of 32 bits for the tensor.

Source  NVIDIA: the FP4 format of Blackwell tensor cores; compressed-tensors' "nvfp4-pack-quantized"
Grid    value = e s_j S,  e an e2m1 element,  s_j an e4m3 scale for each group j of 16 columns,  S float32

 1. S = max|W| / (6 * 448): then the largest s_j is 448, the largest e4m3 value. Fused: max over all layers that an
    engine computes as one (q, k and v; gate and up), for which it has one S.
 2. s_j = nearest e4m3 value to max|w_j| / (6 S), at least 2^-9, its smallest: a group whose weights are all below
    about 2^-18 of max|W| has steps that are too large for it, and may become zero.

S depends on the whole weight, so groups cannot be fitted one after another. Groups along a row whose width is no
multiple of 16 end with a short one, as if filled up with zeros, which changes no scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.lazy import lazy_module
from quantbench.formats.blocks import ByteScales
from quantbench.formats.grid_params import GridParams
from quantbench.formats.values import ELEMENTS, Elements

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

_SMALLEST_SCALE = 2.0**-9  # of e4m3
_SMALLEST_GLOBAL = 2.0**-117  # times the smallest scale, still a normal float32


@component
class Nvfp4Format(ByteScales):
    """group_size: 16 in NVIDIA's format.

    fused    layers that engines compute as one have one S in common
    largest  the magnitude S is made for; null: that of the weight, or of all that it is fused with
    """

    scales: ClassVar[Elements] = ELEMENTS["e4m3"]
    code_bits: ClassVar[int] = 4

    group_size: Annotated[int, Field(ge=1)] = 16
    fused: bool = False
    largest: Annotated[float, Field(gt=0)] | None = None

    @property
    def independent_groups(self) -> bool:
        """No: S depends on all groups."""
        return False

    @property
    def _elements(self) -> Elements:
        return ELEMENTS["e2m1"]

    def params(self, weight: Tensor) -> GridParams:
        """Group scales [out, groups] and the global one [1, groups] of weight [out, in].

        Raises ValueError if the weight holds NaN or infinity.
        """
        own = self.absmax(weight).amax().reshape(1, 1)
        largest = own if self.largest is None else torch.full_like(own, self.largest)
        return self.group_params(weight, self.global_scale(largest))

    def global_scale(self, absmax: Tensor) -> Tensor:
        """Step 1: S for a largest magnitude, of any shape."""
        scale = absmax / (self._elements.largest * self.scales.largest)
        return scale.masked_fill(absmax == 0, 1.0).clamp_(min=_SMALLEST_GLOBAL)

    def group_params(self, weight: Tensor, global_scale: Tensor) -> GridParams:
        """Step 2: the groups' scales for a given S, [1, 1] or one for each row [out, 1]."""
        absmax = self.absmax(weight)
        scale = self.scales.decode(self.scales.encode(absmax / (self._elements.largest * global_scale)))
        return GridParams(scale.clamp_(min=_SMALLEST_SCALE), global_scale=global_scale.expand(-1, absmax.shape[1]))

    def encode(self, weight: Tensor, params: GridParams) -> Tensor:
        """The nearest codes, uint8 of weight's shape."""
        assert params.global_scale is not None
        return self._elements.encode(weight / (params.scale * params.global_scale))

    def decode(self, codes: Tensor, params: GridParams) -> Tensor:
        """The float32 values of codes: e s_j is exact, so that only the product with S is rounded."""
        assert params.global_scale is not None
        return self._elements.decode(codes).mul_(params.scale).mul_(params.global_scale)

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """Four bits, a byte for each group, and 32 bits for S."""
        return super().bits_per_weight(shape) + 32 / (shape[0] * shape[1])
