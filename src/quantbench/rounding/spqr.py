"""SpQR: GPTQ in small groups, in which the weights that are expensive to round are kept in 16 bits.

Paper      Dettmers, Svirschevski, Egiazarian, Kuznedelev, Frantar, Ashkboos, Borzunov, Hoefler, Alistarh: "SpQR: A
           Sparse-Quantized Representation for Near-Lossless LLM Weight Compression", 2023 (arXiv 2306.03078)
Objective  min over Q of tr((W - Q) H (W - Q)^T), Q on the grid but for a few elements, which have a 16-bit value

Symbols    W [out, in], H, U, g and the order of the columns are those of GPTQ (rounding/gptq.py)
           e_ij = ((w_ij - q_ij) / U_jj)^2   what rounding one weight adds to the objective
           tau                               the threshold for e: an element above it is an outlier

Steps      1 to 3, the order of columns and the compensation are GPTQ's, with dynamic groups.
 4. tau = outlier_threshold * mean over columns j of var(W_:j) / U_jj^2, before any rounding.
 5. When a group begins, for each of its rows: e = sum over its columns of e_j; for each column k the same without k, in
    a grid fitted without w_k: e_(-k). The weights with e - e_(-k) > tau are left out of the fit: the mean of the
    others stands in their places. (e and e_(-k) are those of scales as they are; the fit quantizes them, too.)
 6. A weight with e_ij > tau on the grid so fitted is an outlier: its value is w_ij in float16, and the error to be
    compensated is that of this value.

Step 5 is quick because only two of the e_(-k) of a row need a new grid: without its smallest or its largest weight.
Leaving out a weight between them changes no range, so that e - e_(-k) = e_k. (`range: mse` searches its range by all
weights; there this is an approximation.)

Limits     tau = inf is GPTQ with dynamic groups; tau = 0 keeps every weight that is not on the grid by itself.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.input_stats import LinearStats
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format
from quantbench.formats.corrections import Outliers, as_kept
from quantbench.formats.grid_params import GridParams
from quantbench.formats.quantize import quantize
from quantbench.rounding.base import Compensating, Rounded, clipped, unfit_format
from quantbench.rounding.gptq import Columns
from quantbench.rounding.groups import Groups
from quantbench.rounding.prepared import Order

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@component
class Spqr(Compensating):
    """SpQR rounding.

    outlier_threshold  tau, relative to the mean of var(W_:j) / U_jj^2; null: no outliers
    order, damping, block_size  as for GPTQ, with its fallbacks
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hessian"})

    outlier_threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = 0.2
    order: Order = "activation"
    damping: Annotated[float, Field(gt=0)] = 1.0
    block_size: Annotated[int, Field(ge=1)] = 128

    def refusal(self, recipe: Any) -> str | None:
        """Step 5 fits the grids of rows one by one, group after group."""
        return unfit_format(recipe, _unfit)

    def round_clipped(self, weight: Tensor, bound: Tensor | None, stats: LinearStats | None, format: Format) -> Rounded:
        """Round weight float32 [out, in]. Raises ValueError if the Hessian is missing or not finite."""
        width = weight.shape[1]
        g = min(format.columns_per_group(width), width)
        problem = Columns.of(weight, stats, self.order, g, self.damping, bound)  # steps 1 to 3
        if problem is None:
            return Rounded(quantize(clipped(weight, bound), format), {"nearest": 1})
        permuted = self.order == "activation" and g < width
        of = [i // g for i in range(width)] if permuted else (problem.order // g).tolist()
        if self.outlier_threshold is None:
            return problem.round(Groups(format, of, {}), self.block_size, permuted=permuted)
        W, u = problem.W, problem.U.diagonal().clone()
        as_kept(W)  # an overflow is found before its error spreads
        tau = self.outlier_threshold * float((_variance(W) / u.square()).mean())  # step 4
        none = torch.zeros_like(W, dtype=torch.bool)
        groups = _SparseGroups(format, of, {}, u, tau, none, torch.zeros_like(W, dtype=torch.float16))
        rounded = problem.round(groups, self.block_size, permuted=permuted)
        return _with_outliers(rounded, *(t[problem.order.argsort()].t() for t in (groups.kept, groups.values)))


@dataclass(frozen=True)
class _SparseGroups(Groups):
    """GPTQ's groups with outliers. u float32 [in]: the diagonal of U; kept bool, values float16 [in, out]: outliers."""

    u: Tensor
    tau: float
    kept: Tensor
    values: Tensor

    def fit(self, W: Tensor, columns: Tensor) -> GridParams:
        """Step 5."""
        W = W.contiguous()
        saved = saved_errors(W, self.u[columns], self.format.without_double_quantization())
        others = (saved <= self.tau).float()
        mean = (W * others).sum(1, keepdim=True) / others.sum(1, keepdim=True).clamp(min=1)
        return self.format.params(torch.where(saved > self.tau, mean, W))

    def column(self, i: int, w: Tensor) -> tuple[Tensor, Tensor]:
        """Step 6."""
        codes, q = super().column(i, w)
        kept = ((w - q) / self.u[i]).square() > self.tau
        value = w.half()
        self.kept[i], self.values[i] = kept.squeeze(1), value.squeeze(1)
        return codes, torch.where(kept, value.float(), q)


def saved_errors(W: Tensor, u: Tensor, format: Format) -> Tensor:
    """e - e_(-k) for every weight of a group W [out, g] whose columns have the diagonal entries u [g] of U."""

    def errors(values: Tensor) -> Tensor:
        params = format.params(values)
        return ((values - format.decode(format.encode(values, params), params)) / u).square_()

    e = errors(W)
    total, saved = e.sum(1, keepdim=True), e.clone()
    for k in (W.argmin(1, keepdim=True), W.argmax(1, keepdim=True)):
        another = W.gather(1, (k + 1) % W.shape[1])  # a second copy of one of the others: the range is theirs
        left = errors(W.scatter(1, k, another)).scatter_(1, k, 0)
        saved.scatter_(1, k, total - left.sum(1, keepdim=True))
    return saved


def _variance(W: Tensor) -> Tensor:
    """The unbiased variance of each row of W [in, out]; of a single value, its square."""
    return W.var(dim=1) if W.shape[1] > 1 else W.square().squeeze(1)


def _with_outliers(rounded: Rounded, kept: Tensor, values: Tensor) -> Rounded:
    """The rounded weight with these elements; kept, values [out, in]."""
    if not bool(kept.any()):
        return rounded
    weight = dataclasses.replace(rounded.weight, corrections=(Outliers.of(values, kept),))
    return dataclasses.replace(rounded, weight=weight)


def _unfit(format: Format) -> str | None:
    if format.rows_per_scale != 1 or not format.independent_groups:
        return "SpQR needs scales for each output row and group: set group_size to a number or channel, block_rows to 1"
    return None
