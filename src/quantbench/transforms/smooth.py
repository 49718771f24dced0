"""SmoothQuant: moves the spread of the activations' channels into the weights, where it is easier to quantize.

Paper      Xiao, Lin, Seznec, Wu, Demouth, Han: "SmoothQuant", ICML 2023 (arXiv 2211.10438)
Scale      s_j = max|X_j|^alpha / max|W_:j|^(1 - alpha), the maximum over the rows of all quantized weights that read X;
           X' = X diag(s)^-1, W' = W diag(s). With alpha = 1/2, max|X'_j| = max|W'_:j|.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from quantbench.core.component import Part, component
from quantbench.core.input_stats import LinearStats
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format
from quantbench.transforms.base import Producer

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

_SMALLEST = 1e-5  # as in the authors' code, for the weights' maxima and for s


@component
class SmoothQuant(Part):
    """alpha: the migration strength, from 0 (the activations keep their spread) to 1 (the weights take all of it)."""

    needs: ClassVar[frozenset[str]] = frozenset({"absmax"})

    alpha: Annotated[float, Field(ge=0, le=1)]

    @property
    def producers(self) -> frozenset[Producer]:
        """Folded into normalizations only."""
        return frozenset({"norm"})

    def scale(self, weights: Sequence[Tensor], stats: LinearStats, formats: Sequence[Format | None]) -> Tensor:  # noqa: ARG002
        """The scale s float32 [in] > 0 for weights [out_i, in]; formats are not read."""
        inputs = stats.require("absmax")
        columns = torch.stack([w.abs().amax(dim=0) for w in weights]).amax(dim=0).clamp(min=_SMALLEST)
        return (inputs.pow(self.alpha) / columns.pow(1 - self.alpha)).clamp(min=_SMALLEST)
