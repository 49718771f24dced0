"""Outlier Suppression+: channels shifted to the middle of their range, then scaled down to a common threshold.

Paper      Wei, Zhang, Li, Zhang, Gong, Guo, Liu: "Outlier Suppression+: Accurate quantization of large language models
           by equivalent and effective shifting and scaling", EMNLP 2023 (arXiv 2304.09145)
Shift      z_j = (max X_j + min X_j) / 2;   the range of a whole token becomes at most the largest range of a channel
             shift=bias, as its authors do: only where a normalization with a bias wrote X, into which they fold it
Scale      s_j = max(1, r_j / t),   r_j = max |X_j - z_j|:  only channels above the threshold t are scaled, down to t
Objective  min over t of  sum_i || Qa((X - z) diag(s)^-1) Qw(W_i diag(s))^T - (X - z) W_i^T ||^2
             X [k, in]  a sample of the calibration inputs       W_i [out_i, in]  all quantized weights that read X
             Qa, Qw     the formats of activations and weights
             shift=search: over z, too, which is the middle of the range or 0
Grid       t_k = r_max (r_mid / r_max)^(k / grid), k = 0 .. grid, from the largest to the median r_j. t_0 is s = 1: on
           the sample the result is never worse than the shift alone, nor, with shift=search, than neither.
           The authors try thresholds in equal steps and measure the output of the surrounding module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from quantbench.core.component import Part, component
from quantbench.core.input_stats import LinearStats
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import ActivationFormat, Format
from quantbench.formats.quantize import quantize
from quantbench.transforms.base import Producer, Readers

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

SAMPLED = 1024
"""Most tokens of the sample that are looked at."""


@component
class OsPlus(Part):
    """Outlier Suppression+.

    grid   how many thresholds are tried besides the largest
    shift  which inputs are shifted. "bias": those that a normalization with a bias wrote, none in models with
           root-mean-square normalizations; true: all; false: none; "search": those whose objective it lessens
    """

    needs: ClassVar[frozenset[str]] = frozenset({"minimum", "maximum", "rows"})

    grid: Annotated[int, Field(ge=1)] = 20
    shift: bool | Literal["bias", "search"] = "bias"

    def refusal(self, recipe: Any) -> str | None:
        """It minimises the error of quantized activations: without them it would do nothing."""
        if recipe.activation is None:
            return "OsPlus shifts and scales for quantized activations: set activation, or leave the transform out"
        return None

    @property
    def producers(self) -> frozenset[Producer]:
        """The scale is folded into normalizations or into the rows of the linear layer before."""
        return frozenset({"norm", "linear"})

    def shift_and_scale(self, readers: Readers) -> tuple[Tensor | None, Tensor | None]:
        """The shift z float32 [in] or None, and the scale s float32 [in] >= 1, None where none can be folded."""
        stats = readers.stats
        shifts: list[Tensor | None] = [None]
        if self.shift == "search" or self.shift is True or (self.shift == "bias" and readers.biased):
            middle = (stats.require("maximum") + stats.require("minimum")) / 2
            shifts = [None, middle] if self.shift == "search" else [middle]
        if not readers.scalable and len(shifts) == 1:
            return shifts[0], None
        found = [(z, *self._best_scale(readers, stats if z is None else stats.shifted(z))) for z in shifts]
        z, s, _ = min(found, key=lambda one: one[2])
        return z, s if readers.scalable else None

    def _best_scale(self, readers: Readers, stats: LinearStats) -> tuple[Tensor, float]:
        """The best s of the grid for inputs that are shifted already, and the objective with it."""
        X = stats.require("rows")[:SAMPLED]
        r = torch.maximum(stats.require("minimum").abs(), stats.require("maximum").abs())
        wanted = [X @ W.T for W in readers.weights]
        best, least = torch.ones_like(r), torch.inf
        for k in range(self.grid + 1 if readers.scalable else 1):
            t = r.max() * (r.median() / r.max()) ** (k / self.grid)
            s = (r / t).clamp(min=1) if k and float(t) > 0 else torch.ones_like(r)
            inputs = _rounded_inputs(X / s, stats.rescaled(s), readers.activation)
            loss = sum(
                float((inputs @ _rounded_weight(W * s, own).T - Y).square().sum())
                for W, own, Y in zip(readers.weights, readers.formats, wanted, strict=True)
            )
            if loss < least:
                best, least = s, loss
        return best, least


def _rounded_inputs(X: Tensor, stats: LinearStats, activation: ActivationFormat | None) -> Tensor:
    if activation is None:
        return X
    if not activation.needs:
        return activation.fake_quantize(X)
    return activation.fake_quantize(X, *activation.static_params(stats.require("minimum"), stats.require("maximum")))


def _rounded_weight(W: Tensor, format: Format | None) -> Tensor:
    return W if format is None else quantize(W, format).dequantize()
