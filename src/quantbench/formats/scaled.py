"""Small floats and tables of values times one scale per block: fp8, nf4.

Grid    value = element * scale,  scale = max|w| / largest element, over a block of weights
        fp8  (Micikevicius et al., "FP8 Formats for Deep Learning", arXiv 2209.05433): e4m3, e5m2
        nf4  (Dettmers et al., QLoRA, arXiv 2305.14314): e.g. blocks of 64. There blocks run over the flattened weight;
             here along rows, which is the same where 64 divides the width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from quantbench.core.component import component
from quantbench.core.finite import all_finite
from quantbench.core.lazy import lazy_module
from quantbench.formats.blocks import BlockGrid, BlockRows, GroupSize, check_blocks
from quantbench.formats.grid import ScaleDtype, stored_scale
from quantbench.formats.grid_params import GridParams
from quantbench.formats.values import ElementCodes

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@component
class ScaledFormat(ElementCodes, BlockGrid):
    """The nearest of the elements' values times the scale of the block; beyond the largest it is the largest.

    element     values and codes: see `quantbench.formats.values`
    group_size  input columns per scale, "channel": one scale per output row, "tensor": one in all
    block_rows  output rows that share a scale
    """

    element: Literal["e2m1", "e4m3", "e5m2", "nf4"]
    group_size: GroupSize
    block_rows: BlockRows = 1
    scale_dtype: ScaleDtype = "float32"

    def __post_init__(self) -> None:
        check_blocks(self.group_size, self.block_rows)

    def params(self, weight: Tensor) -> GridParams:
        """Scales [out, groups] of weight [out, in], or [1, 1] for "tensor"; a block of zeros gets that of a largest 1.

        Raises ValueError if the weight holds NaN or infinity, or if a scale overflows `scale_dtype`.
        """
        absmax = self.absmax(weight)
        scale = stored_scale(absmax.masked_fill(absmax == 0, 1.0) / self._elements.largest, self.scale_dtype)
        if not all_finite(scale):
            raise ValueError(f"weights up to {float(absmax.max()):.4g} overflow scale_dtype={self.scale_dtype!r}")
        return self.blocks.spread(GridParams(scale), len(weight))

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """Bits of a code, and a scale for each block."""
        per_scale = torch.finfo(getattr(torch, self.scale_dtype)).bits
        return self.code_bits + per_scale * self.blocks.count(shape) / (shape[0] * shape[1])
