"""LLM.int8()'s activations: features with an outlier stay in 16 bits, the others are quantized without them.

Paper      Dettmers, Lewis, Belkada, Zettlemoyer: "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale",
           NeurIPS 2022 (arXiv 2208.07339)
Steps      1. O = the features with |x| > threshold anywhere in the sequence.
           2. x_O stays as it is. The others are quantized with the features O set to zero: outliers widen no range.

As in its authors' library (with the 16-bit weights not kept) the weights that multiply x_O are dequantized int8, too.
O depends on the whole sequence, later tokens included, as in a prefill there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.core.lazy import lazy_module
from quantbench.core.mixing import Mixing
from quantbench.formats.base import ActivationFormat

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@component
class OutlierActivation:
    """Activations in the dynamic format `inner`, but for features beyond `threshold` (the paper's 6.0)."""

    inner: ActivationFormat
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 6.0

    def __post_init__(self) -> None:
        if self.inner.needs:
            raise ConfigError("inner must be dynamic: a calibrated range would contain the outliers")

    @property
    def mixing(self) -> Mixing:
        """SEQUENCE, or what the inner format mixes. (BATCH where a layer reads its sequences as one, as experts do.)"""
        return max(Mixing.SEQUENCE, self.inner.mixing)

    @property
    def needs(self) -> frozenset[str]:
        """None: the outliers are those of the input at hand."""
        return frozenset()

    def static_params(self, minimum: Tensor, maximum: Tensor) -> tuple[Tensor, Tensor | None]:  # noqa: ARG002
        """There are none."""
        raise ValueError("a dynamic activation format has no static parameters")

    def fake_quantize(self, x: Tensor, scale: Tensor | None = None, zero: Tensor | None = None) -> Tensor:
        """Quantize x [..., tokens, features] or [features], in its dtype; scale and zero must not be given."""
        outlier = x.abs() > self.threshold  # step 1
        if x.dim() > 1:
            outlier = outlier.any(dim=-2, keepdim=True)
        rest = self.inner.fake_quantize(x.masked_fill(outlier, 0), scale, zero)
        return torch.where(outlier, x, rest)  # step 2
