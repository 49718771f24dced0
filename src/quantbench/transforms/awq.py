"""AWQ: activation-aware weight quantization, its scale search and its clipping search.

Paper      Lin, Tang, Tang, Yang, Chen, Wang, Xiao, Dang, Gan, Han: "AWQ", MLSys 2024 (arXiv 2306.00978), in the form
           of its authors' code ("v2").

Scale      min over alpha = k / grid, k = 0 .. grid - 1, of  sum_i tr(dW_i H dW_i^T),
           dW_i = W_i - Q(W_i diag(s)) diag(s)^-1
             x [in]  mean over tokens of |X_j|           s = max(x^alpha, 1e-4), divided by sqrt(max(s) min(s))
             W_i [out_i, in]  all quantized weights that read X, each with its format     H [in, in]  2/n X^T X
           alpha = 0 is s = 1: on this objective the result is never worse than rounding to nearest.
           The authors measure the output of the surrounding module (attention block, MLP) instead. This objective is
           the outputs of the linear layers themselves: it needs no second run of the module, is exact over all
           calibration tokens, but does not weigh the layers by what follows them.

Clip       for each row and group of columns: min over c = 1 - i / grid, i < max_shrink * grid, of  dw^T H_gg dw,
           dw = w - Q(clamp(w, -c max|w|, c max|w|)),  H_gg the group's diagonal block of H.
           This is the authors' objective, the squared output error of that group alone, over all calibration tokens
           where they sample 512.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from quantbench.core.component import Part, component
from quantbench.core.errors import ConfigError
from quantbench.core.input_stats import LinearStats, finite_hessian, output_error, quick_output_error
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format, default_group_index
from quantbench.formats.quantize import nearest_error
from quantbench.transforms.base import Producer

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

_SMALLEST = 1e-4  # of x^alpha, as in the authors' code
_AS_GOOD = 1 + 1e-5
"""Losses within this factor of the least are computed again, without shortcuts, before one is chosen."""


@component
class AwqScale(Part):
    """grid: how many exponents alpha are tried."""

    needs: ClassVar[frozenset[str]] = frozenset({"mean_abs", "hessian"})

    grid: Annotated[int, Field(ge=1)] = 20

    @property
    def producers(self) -> frozenset[Producer]:
        """All: where its authors fold, and where they scale the activation function ("ScaledActivation")."""
        return frozenset({"norm", "linear", "activation"})

    def scale(self, weights: Sequence[Tensor], stats: LinearStats, formats: Sequence[Format | None]) -> Tensor:
        """The scale s float32 [in] > 0 for weights [out_i, in]; ConfigError if none has a format."""
        rounded = [(W, grid) for W, grid in zip(weights, formats, strict=True) if grid is not None]
        if not rounded:
            raise ConfigError("AwqScale searches the best scale for a weight format: the recipe has none")
        x, H = stats.require("mean_abs"), finite_hessian(stats)
        scales = [_scale(x, k / self.grid) for k in range(self.grid)]
        losses, least = [torch.inf] * self.grid, torch.inf
        # Likely exponents first, so that the others are soon known to lose.
        for k in sorted(range(self.grid), key=lambda k: abs(k - 0.4 * self.grid)):
            losses[k] = _loss(rounded, scales[k], H, _AS_GOOD * least)
            least = min(least, losses[k])
        best, least_of_all = torch.ones_like(x), torch.inf
        close = [k for k in range(self.grid) if losses[k] <= _AS_GOOD * least]
        for k in close:
            loss = losses[k] if len(close) == 1 else _exact_loss(rounded, scales[k], H)
            if loss < least_of_all:
                best, least_of_all = scales[k], loss
        return best


@component
class AwqClip(Part):
    """grid, max_shrink: the ranges tried are 1 - i / grid of the largest magnitude, for i < max_shrink * grid.

    Works in a few copies of the weight; nothing grows with the number of tokens or candidates. Rows that share a scale
    get one threshold. For formats whose groups are independent of each other, the objective is never
    worse than without clipping.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hessian"})

    grid: Annotated[int, Field(ge=1)] = 20
    max_shrink: Annotated[float, Field(gt=0, le=1)] = 0.5

    def bound(self, weight: Tensor, stats: LinearStats, format: Format) -> Tensor:
        """What the magnitude of each weight is clamped to [out, in], the same within a group."""
        width = weight.shape[1]
        columns = min(format.columns_per_group(width), width)
        blocks = _diagonal_blocks(finite_hessian(stats), columns)
        rows = format.rows_per_scale or len(weight)
        absmax = _by_rows(_grouped(weight.abs(), columns).amax(dim=2), rows).amax(dim=2)  # [groups, runs of rows]
        best, least = absmax, torch.full_like(absmax, torch.inf)
        for i in range(max(1, int(self.max_shrink * self.grid))):
            threshold = absmax * (1 - i / self.grid)
            limit = threshold.repeat_interleave(rows, dim=1)[:, : len(weight)].t()
            dw = _grouped(nearest_error(weight, format, limit=limit), columns)
            error = _by_rows((torch.bmm(dw, blocks) * dw).sum(dim=2), rows).sum(dim=2)  # dw^T H_gg dw
            better = error < least
            best, least = torch.where(better, threshold, best), torch.where(better, error, least)
        group_index = default_group_index(width, columns).to(weight.device)
        return best.repeat_interleave(rows, dim=1)[group_index, : len(weight)].t()


def _scale(x: Tensor, alpha: float) -> Tensor:
    s = x.pow(alpha).clamp(min=_SMALLEST)
    return s / (s.max() * s.min()).sqrt()


def _loss(rounded: Sequence[tuple[Tensor, Format]], s: Tensor, H: Tensor, most: float) -> float:
    """sum_i tr(dW_i H dW_i^T), up to rounding; infinite if above `most`."""
    loss = 0.0
    for W, grid in rounded:
        loss += quick_output_error(nearest_error(W, grid, s), H, most - loss)
        if loss > most:
            return torch.inf
    return loss


def _exact_loss(rounded: Sequence[tuple[Tensor, Format]], s: Tensor, H: Tensor) -> float:
    return sum(output_error(nearest_error(W, grid, s), H) for W, grid in rounded)


def _grouped(weight: Tensor, columns: int) -> Tensor:
    """The weight [out, in] as [groups, out, columns]; a short last group is filled up with zeros."""
    rows, width = weight.shape
    whole = torch.nn.functional.pad(weight, (0, -width % columns)) if width % columns else weight
    return whole.reshape(rows, -1, columns).transpose(0, 1)


def _by_rows(values: Tensor, rows: int) -> Tensor:
    """Values [groups, out] as [groups, runs, rows]; a short last run is filled up with zeros."""
    return torch.nn.functional.pad(values, (0, -values.shape[1] % rows)).reshape(len(values), -1, rows)


def _diagonal_blocks(hessian: Tensor, columns: int) -> Tensor:
    """The blocks H_gg as [groups, columns, columns]; a short last one is filled up with zeros."""
    missing = -len(hessian) % columns
    padded = torch.nn.functional.pad(hessian, (0, missing, 0, missing))
    groups = len(padded) // columns
    return padded.reshape(groups, columns, groups, columns).diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()
