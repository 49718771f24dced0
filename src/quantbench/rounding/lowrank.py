"""LoRC: what rounding took from a weight is given back in part, as a product of two thin matrices.

Paper      Yao, Wu, Li, Youn, He: "ZeroQuant-V2: Exploring Post-training Quantization in LLMs from Comprehensive Study
           to Low Rank Compensation", 2023 (arXiv 2303.08302)
Objective  min over A [out, m], B [m, in] of |W - Q - A B|_F, for the inner rounding's Q

Steps
 1. Q from the inner rounding; E = W - Q = Y S Z^T, its singular value decomposition, S_1 >= S_2 >= ..
 2. A = Y_m S_m^(1/2), B = S_m^(1/2) Z_m^T from the m largest singular values; W ~ Q + A B.

What is left is sqrt(sum over i > m of S_i^2): it never grows with m, and is 0 at full rank, but for the factors' dtype.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.finite import all_finite
from quantbench.core.input_stats import LinearStats
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format
from quantbench.formats.corrections import LowRank
from quantbench.formats.grid import ScaleDtype
from quantbench.rounding.base import Rounded, Rounding, round_with_clip
from quantbench.rounding.wrapper import Wrapper

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@component
class LowRankCompensation(Wrapper):
    """LoRC around `inner`. rank: m; 0 changes nothing, and a weight of smaller rank takes no more than its own."""

    inner: Rounding
    rank: Annotated[int, Field(ge=0)] = 8
    factor_dtype: ScaleDtype = "float16"

    def round(self, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:
        """Round weight float32 [out, in]. Raises ValueError if the inner rounding does, or if a factor overflows."""
        return self.round_clipped(weight, None, stats, format)

    def round_clipped(self, weight: Tensor, bound: Tensor | None, stats: LinearStats | None, format: Format) -> Rounded:
        """As without a clip; E is that of the weight as it is."""
        rounded = round_with_clip(self.inner, weight, bound, stats, format)  # step 1
        if self.rank == 0:
            return rounded
        Y, S, Zt = torch.linalg.svd(weight - rounded.weight.dequantize(), full_matrices=False)
        root, dtype = S[: self.rank].sqrt(), getattr(torch, self.factor_dtype)
        product = LowRank(left=(Y[:, : self.rank] * root).to(dtype), right=(root[:, None] * Zt[: self.rank]).to(dtype))
        if not (all_finite(product.left) and all_finite(product.right)):
            raise ValueError(f"the rounding error is too large for factor_dtype={self.factor_dtype!r}")
        corrected = dataclasses.replace(rounded.weight, corrections=(*rounded.weight.corrections, product))
        return dataclasses.replace(rounded, weight=corrected)
