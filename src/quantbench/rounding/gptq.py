"""GPTQ: one input column is rounded after another, and each error is spread over the columns still to come.

Paper      Frantar, Ashkboos, Hoefler, Alistarh: "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
           Transformers", ICLR 2023 (arXiv 2210.17323); act_order and static_groups as in its authors' code.
Objective  min over Q on the grid of tr((W - Q) H (W - Q)^T), the squared output error over the calibration inputs

Symbols    W [out, in]  the weight, changed as errors arrive       H [in, in]  2/n X^T X
           U [in, in]   upper triangular, H^-1 = U^T U             g           columns that share a scale
           q [out]      column i of W on the grid                  E [B, out]  errors e of a block of B columns
           e [out]      (w - q) / U_ii, w being column i of W

Steps
 1. An input that was always zero (H_jj = 0) gets W_:j = 0 and H_jj = 1.
 2. act_order: permute columns so that H_jj falls. (This order does not depend on the damping.)
 3. H <- H + damping * mean(H_jj) * I, then U.
 4. For each block of B columns, for each column i in it:
    a. dynamic groups, if i starts a group: fit scale and zero point to W_:,i:i+g as updated by all columns before i.
       Static groups: they were fitted to the original W, before step 2.
    b. w = W_:i - sum over the block's columns k < i of U_ki E_k;   q = nearest grid point;   E_i = e = (w - q) / U_ii
    After the block: W_:j <- W_:j - sum over the block's columns k of U_kj E_k, for all columns j after it.
    Blocks only save memory traffic: B changes nothing but the order of summation.

Example    W = (.6, .6), the grid being the integers, H = [[2, 1], [1, 2]]: H^-1 = [[2, -1], [-1, 2]] / 3, so that
           U_12 / U_11 = -1/2. Column 1: .6 -> 1, error -.4. Column 2: .6 - (-.4)(-.5) = .4 -> 0. The objective of
           (1, 0) is .56; that of nearest rounding, (1, 1), is .96.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from quantbench.component import Part, component
from quantbench.formats.base import Format, GridParams, QuantizedWeight
from quantbench.formats.quantize import quantize
from quantbench.pipeline.stats import LinearStats
from quantbench.rounding.base import Rounded
from quantbench.rounding.hessian import finite_hessian, inverse_cholesky, without_dead_inputs


@component
class Gptq(Part):
    """GPTQ rounding.

    act_order      quantize columns in order of falling H_jj ("desc_act")
    static_groups  fit all groups before rounding; with act_order this keeps groups runs of neighbouring columns,
                   whereas dynamic groups then consist of permuted columns and a group index is stored
    damping        added to the diagonal of H, relative to its mean ("percdamp"); raised tenfold as long as the Cholesky
                   decomposition fails (fallback "damping_raised"), after five raises the layer is rounded to nearest
                   (fallback "nearest"). Inputs that were always zero count as fallback "dead_inputs".
    block_size     columns per block
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hessian"})

    act_order: bool = False
    static_groups: bool = False
    damping: Annotated[float, Field(gt=0)] = 0.01
    block_size: Annotated[int, Field(ge=1)] = 128

    def refusal(self, recipe: Any) -> str | None:
        """Dynamic groups are fitted one after another: not for formats whose groups share a scale."""
        dependent = [key for key, grid in recipe.weight_formats.items() if not grid.independent_groups]
        if self.static_groups or not dependent:
            return None
        return (
            f"rounding.static_groups=false fits groups one by one, but the groups of {dependent[0]} share a scale: "
            "set rounding.static_groups=true"
        )

    def round(self, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:
        """Round weight float32 [out, in]. Raises ValueError if the Hessian is missing or not finite."""
        width = weight.shape[1]
        W, H, dead = without_dead_inputs(weight, finite_hessian(stats))  # step 1
        order = torch.arange(width, device=W.device)
        if self.act_order:
            order = H.diagonal().argsort(descending=True, stable=True)  # step 2
        factor = inverse_cholesky(H[order][:, order], self.damping)  # step 3
        if factor is None:
            return Rounded(quantize(weight, format), {"nearest": 1})
        g = min(format.columns_per_group(width), width)
        dynamic = not self.static_groups and g < width
        group_of = torch.arange(width, device=W.device) // g if dynamic else order // g
        grid = _Groups(format, g, group_of.tolist(), [] if dynamic else format.params(W).split())
        codes = _round_columns(W[:, order].t().contiguous(), factor.upper, grid, self.block_size)
        columns = order.argsort()
        rounded = QuantizedWeight(
            codes=codes[columns].t().contiguous(),
            params=GridParams.join(grid.params),
            format=format,
            group_index=group_of[columns].int() if dynamic and self.act_order else None,
        )
        counts = {"damping_raised": factor.raised, "dead_inputs": dead}
        return Rounded(rounded, {name: count for name, count in counts.items() if count})


@dataclass(frozen=True)
class _Groups:
    """The groups' parameters [out, 1] each: complete from the start if static, else appended as groups begin.

    of: the group of each column, in the order of rounding.
    """

    format: Format
    columns: int
    of: list[int]
    params: list[GridParams]


def _round_columns(W: Tensor, U: Tensor, grid: _Groups, block_size: int) -> Tensor:
    """Step 4, on W transposed [in, out] so that a column is contiguous: the codes uint8 [in, out].

    W is used up.
    """
    codes = torch.empty(W.shape, dtype=torch.uint8, device=W.device)
    diagonal = U.diagonal().tolist()
    for start in range(0, len(W), block_size):
        end = min(start + block_size, len(W))
        E = torch.empty_like(W[start:end])
        before = U[start:end, start:end].t().contiguous()
        for i in range(start, end):
            done = i - start
            if grid.of[i] == len(grid.params):  # step 4a
                group = slice(i, i + grid.columns)
                updated = torch.addmm(W[group], U[start:i, group].t(), E[:done], alpha=-1)
                grid.params.append(grid.format.params(updated.t()))
            params = grid.params[grid.of[i]]
            w = torch.addmv(W[i], E[:done].t(), before[done, :done], alpha=-1).unsqueeze(1)  # step 4b
            code = grid.format.encode(w, params)
            codes[i] = code.squeeze(1)
            torch.div((w - grid.format.decode(code, params)).squeeze(1), diagonal[i], out=E[done])
        W[end:].addmm_(U[start:end, end:].t(), E, alpha=-1)
    return codes
