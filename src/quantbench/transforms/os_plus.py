"""Outlier Suppression+: channels shifted to the middle of their range, then scaled down to a common threshold.

Paper      Wei, Zhang, Li, Zhang, Gong, Guo, Liu: "Outlier Suppression+: Accurate quantization of large language models
           by equivalent and effective shifting and scaling", EMNLP 2023 (arXiv 2304.09145)
Shift      z_j = (max X_j + min X_j) / 2;   the range of a whole token becomes at most the largest range of a channel
Scale      s_j = max(1, r_j / t),   r_j = max |X_j - z_j|:  only channels above the threshold t are scaled, down to t
Objective  min over t of  sum_i || Qa((X - z) diag(s)^-1) Qw(W_i diag(s))^T - (X - z) W_i^T ||^2
             X [k, in]  a sample of the calibration inputs       W_i [out_i, in]  all weights that read X
             Qa, Qw     the formats of activations and weights
Grid       t_k = r_max (r_mid / r_max)^(k / grid), k = 0 .. grid, from the largest to the median r_j. t_0 is s = 1: on
           the sample the result is never worse than the shift alone.
           The authors try thresholds in equal steps and measure the output of the surrounding module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from quantbench.core.component import Part, component
from quantbench.core.input_stats import LinearStats
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import ActivationFormat, Format
from quantbench.formats.quantize import quantize
from quantbench.transforms.base import Producer

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

SAMPLED = 1024
"""Most tokens of the sample that are looked at."""


@component
class OsPlus(Part):
    """grid: how many thresholds are tried besides the largest."""

    needs: ClassVar[frozenset[str]] = frozenset({"minimum", "maximum", "rows"})

    grid: Annotated[int, Field(ge=1)] = 20

    def refusal(self, recipe: Any) -> str | None:
        """It minimises the error of quantized activations: without them it would do nothing."""
        if recipe.activation is None:
            return "OsPlus shifts and scales for quantized activations: set activation, or leave the transform out"
        return None

    @property
    def producers(self) -> frozenset[Producer]:
        """The scale is folded into normalizations or into the rows of the linear layer before."""
        return frozenset({"norm", "linear"})

    def shift(self, stats: LinearStats) -> Tensor:
        """The shift z float32 [in]."""
        return (stats.require("maximum") + stats.require("minimum")) / 2

    def scale_shifted(
        self, weights: Sequence[Tensor], stats: LinearStats, format: Format | None, activation: ActivationFormat | None
    ) -> Tensor:
        """The scale s float32 [in] >= 1 for weights [out_i, in] and statistics of X - z."""
        X = stats.require("rows")[:SAMPLED]
        r = torch.maximum(stats.require("minimum").abs(), stats.require("maximum").abs())
        wanted = [X @ W.T for W in weights]
        best, least = torch.ones_like(r), torch.inf
        for k in range(self.grid + 1):
            t = r.max() * (r.median() / r.max()) ** (k / self.grid)
            s = (r / t).clamp(min=1) if k and float(t) > 0 else torch.ones_like(r)
            inputs = _rounded_inputs(X / s, stats.rescaled(s), activation)
            loss = sum(
                float((inputs @ _rounded_weight(W * s, format).T - Y).square().sum())
                for W, Y in zip(weights, wanted, strict=True)
            )
            if loss < least:
                best, least = s, loss
        return best


def _rounded_inputs(X: Tensor, stats: LinearStats, activation: ActivationFormat | None) -> Tensor:
    if activation is None:
        return X
    if not activation.needs:
        return activation.fake_quantize(X)
    return activation.fake_quantize(X, *activation.static_params(stats.require("minimum"), stats.require("maximum")))


def _rounded_weight(W: Tensor, format: Format | None) -> Tensor:
    return W if format is None else quantize(W, format).dequantize()
