"""GPTQ: one input column is rounded after another, and each error is spread over the columns still to come.

Paper      Frantar, Ashkboos, Hoefler, Alistarh: "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
           Transformers", ICLR 2023 (arXiv 2210.17323); activation order and static groups as in its
           authors' code. Group-aware order: Gafni et al., arXiv 2505.14638.
Objective  min over Q on the grid of tr((W - Q) H (W - Q)^T), the squared output error over the calibration inputs

Symbols    W [out, in]  the weight, changed as errors arrive       H [in, in]  2/n X^T X
           U [in, in]   upper triangular, H^-1 = U^T U             g           columns that share a scale
           q [out]      column i of W on the grid                  E [B, out]  errors e of a block of B columns
           e [out]      (w - q) / U_ii, w being column i of W

Steps
 1. An input that was always zero (H_jj = 0) gets W_:j = 0 and H_jj = 1.
 2. Permute columns. activation: so that H_jj falls. group_aware: groups stay runs of neighbouring columns; they come by
    falling largest H_jj, and the columns of each by falling H_jj. (The order does not depend on the damping.)
 3. H <- H + damping * mean(H_jj) * I, then U.
 4. For each block of B columns, for each column i in it:
    a. dynamic groups, if i starts a group: fit scale and zero point to W_:,i:i+g as updated by all columns before i.
       Static groups: they were fitted to the original W, before step 2. Behind a clip both are fitted to clipped
       values; everything else works with the values as they are.
    b. w = W_:i - sum over the block's columns k < i of U_ki E_k;   q = nearest grid point;   E_i = e = (w - q) / U_ii
    After the block: W_:j <- W_:j - sum over the block's columns k of U_kj E_k, for all columns j after it.
    Blocks only save memory traffic: B changes nothing but the order of summation.

Example    W = (.6, .6), the grid being the integers, H = [[2, 1], [1, 2]]: H^-1 = [[2, -1], [-1, 2]] / 3, so that
           U_12 / U_11 = -1/2. Column 1: .6 -> 1, error -.4. Column 2: .6 - (-.4)(-.5) = .4 -> 0. The objective of
           (1, 0) is .56; that of nearest rounding, (1, 1), is .96.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.input_stats import LinearStats, finite_hessian
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.kernels.loading import on_processor
from quantbench.rounding.base import Compensating, Rounded, clipped, unfit_format
from quantbench.rounding.column_kernel import compiled_here, round_panels
from quantbench.rounding.groups import Groups, WeightedGroups
from quantbench.rounding.prepared import Order, Prepared

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@component
class Gptq(Compensating):
    """GPTQ rounding.

    order          of the columns: natural; activation (by falling H_jj, "desc_act"); group_aware (by falling H_jj
                   within groups, which come by their largest)
    static_groups  fit all groups before rounding. Groups are runs of neighbouring columns, except dynamic ones in
                   activation order: these consist of permuted columns, and a group index is stored
    weighted_range  weight the errors of column j by H_jj in the search of integers with range=mse
    damping        added to the diagonal of H, relative to its mean ("percdamp"); raised tenfold as long as the Cholesky
                   decomposition fails (fallback "damping_raised"), after five raises the layer is rounded to nearest
                   (fallback "nearest"). Inputs that were always zero count as fallback "dead_inputs", integers on a
                   processor that are rounded without the compiled kernel as fallback "uncompiled".
    block_size     columns per block
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hessian"})

    order: Order = "natural"
    static_groups: bool = False
    weighted_range: bool = False
    damping: Annotated[float, Field(gt=0)] = 0.01
    block_size: Annotated[int, Field(ge=1)] = 128

    def refusal(self, recipe: Any) -> str | None:
        """Dynamic groups are fitted one after another: not for formats whose groups share a scale. And weights of a
        search need a search.
        """
        if self.weighted_range and (reason := unfit_format(recipe, _no_search)) is not None:
            return reason
        dependent = [key for key, grid in recipe.weight_formats.items() if not grid.independent_groups]
        if self.static_groups or not dependent:
            return None
        return (
            f"rounding.static_groups=false fits groups one by one, but the groups of {dependent[0]} share a scale: "
            "set rounding.static_groups=true"
        )

    def round_clipped(self, weight: Tensor, bound: Tensor | None, stats: LinearStats | None, format: Format) -> Rounded:
        """Round weight float32 [out, in]. Raises ValueError if the Hessian is missing or not finite."""
        width = weight.shape[1]
        g = min(format.columns_per_group(width), width)
        problem = Columns.of(weight, stats, self.order, g, self.damping, bound)
        if problem is None:
            return Rounded(quantize(clipped(weight, bound), format), {"nearest": 1})
        dynamic = not self.static_groups and g < width
        permuted = dynamic and self.order == "activation"
        groups = Groups(format, [i // g for i in range(width)] if permuted else (problem.order // g).tolist(), {})
        if self.weighted_range:
            groups = WeightedGroups(groups.format, groups.of, groups.params, problem.diagonal / problem.diagonal.mean())
        if not dynamic:
            back = problem.order.argsort()
            fitted = groups.fit(problem.original(clip=True), back)
            groups.params.update(enumerate(fitted.split()))
        return problem.round(groups, self.block_size, permuted=permuted)


@dataclass(frozen=True)
class Columns:
    """The columns in the order of rounding: W transposed [in, out], so that each is contiguous; order int64 [in]; U.

    diagonal  H_jj [in], before damping
    bound     what W is clamped to where grids are fitted [in, out], or None
    """

    W: Tensor
    order: Tensor
    U: Tensor
    diagonal: Tensor
    fallbacks: dict[str, int]
    bound: Tensor | None = None

    @classmethod
    def of(
        cls,
        weight: Tensor,
        stats: LinearStats | None,
        order: Order,
        g: int,
        damping: float,
        bound: Tensor | None = None,
    ) -> Columns | None:
        """Steps 1 to 3, on copies, for groups of g columns; None where H has no Cholesky decomposition."""

        def prepare() -> Prepared | None:
            return Prepared.of(finite_hessian(stats), order, g, damping)

        found = prepare() if stats is None else stats.derived(("columns", order, g, damping), prepare)
        if found is None:
            return None
        W = weight.masked_fill(found.dead, 0)  # step 1
        counts = {"damping_raised": found.raised, "dead_inputs": int(found.dead.sum())}
        given = {name: count for name, count in counts.items() if count}
        in_order, limit = (None if t is None else _in_order(t, found.order) for t in (W, bound))
        assert in_order is not None
        return cls(in_order, found.order, found.U, found.diagonal, given, limit)

    def original(self, *, clip: bool = False) -> Tensor:
        """W [out, in] in the weight's own order; clip: as grids are fitted to it."""
        W = clipped(self.W, self.bound) if clip else self.W
        return W.index_select(0, self.order.argsort()).t().contiguous()

    def round(self, groups: Groups, block_size: int, *, permuted: bool) -> Rounded:
        """Step 4, which uses W up.

        permuted: groups consist of columns in the order of rounding, so that the group of each must be stored.
        """
        codes = _round_columns(self, groups, block_size)
        slow = groups.grid is not None and on_processor(codes) and not compiled_here()
        back = self.order.argsort()
        index = torch.tensor(groups.of, dtype=torch.int32, device=back.device)[back] if permuted else None
        params = GridParams.join([groups.params[k] for k in sorted(groups.params)])
        weight = QuantizedWeight(codes.index_select(0, back).t().contiguous(), params, groups.format, index)
        return Rounded(weight, self.fallbacks | ({"uncompiled": 1} if slow else {}))


def _in_order(values: Tensor, order: Tensor) -> Tensor:
    """Columns of values [out, in] as rows, in the order of rounding [in, out]."""
    return values.t().contiguous().index_select(0, order)


def _round_columns(columns: Columns, groups: Groups, block_size: int) -> Tensor:
    """Step 4: the codes uint8 [in, out] of W [in, out], which is used up."""
    grid = groups.grid
    if grid is None or not on_processor(columns.W) or not compiled_here():
        return round_one_by_one(columns, groups, block_size)

    def fit(updated: Tensor, i: int) -> GridParams:
        return _fitted(columns, groups, updated, i)

    return round_panels(columns.W, columns.U, grid, groups.of, groups.params, fit, block_size)


def round_one_by_one(columns: Columns, groups: Groups, block_size: int) -> Tensor:
    """Step 4 column by column, for every format and device."""
    W, U = columns.W, columns.U
    sizes = Counter(groups.of)
    codes = torch.empty(W.shape, dtype=torch.uint8, device=W.device)
    diagonal = U.diagonal().tolist()
    for start in range(0, len(W), block_size):
        end = min(start + block_size, len(W))
        E = torch.empty_like(W[start:end])
        before = U[start:end, start:end].t().contiguous()
        for i in range(start, end):
            done = i - start
            if groups.of[i] not in groups.params:  # step 4a
                group = slice(i, i + sizes[groups.of[i]])
                updated = torch.addmm(W[group], U[start:i, group].t(), E[:done], alpha=-1)
                groups.params[groups.of[i]] = _fitted(columns, groups, updated, i)
            w = torch.addmv(W[i], E[:done].t(), before[done, :done], alpha=-1).unsqueeze(1)  # step 4b
            code, q = groups.column(i, w)
            codes[i] = code.squeeze(1)
            torch.div((w - q).squeeze(1), diagonal[i], out=E[done])
        W[end:].addmm_(U[start:end, end:].t(), E, alpha=-1)
    return codes


def _fitted(columns: Columns, groups: Groups, updated: Tensor, i: int) -> GridParams:
    """Step 4a for the group that begins with the i-th column, updated [n, out]."""
    group = slice(i, i + len(updated))
    fitted_to = clipped(updated, None if columns.bound is None else columns.bound[group])
    return groups.fit(fitted_to.t(), torch.arange(i, group.stop, device=updated.device))


def _no_search(format: Format) -> str | None:
    if isinstance(format, IntFormat) and format.range == "mse":
        return None
    found = f"range={format.range}" if isinstance(format, IntFormat) else type(format).__name__
    return f"rounding.weighted_range=true weights a search of ranges; {found} has none: set range=mse, or false here"
