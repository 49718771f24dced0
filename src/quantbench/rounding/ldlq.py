"""LDLQ: one input column is rounded after another, each together with the errors of all columns before it.

Paper      Chee, Cai, Kuleshov, De Sa: "QuIP: 2-Bit Quantization of Large Language Models With Guarantees", NeurIPS 2023
           (arXiv 2307.13304); LDLQ, and LDLQ-RG of its authors' code: sorted columns and greedy passes
Objective  min over Q on the grid of tr((W - Q) H (W - Q)^T), the squared output error over the calibration inputs

Symbols    W [out, in]  the weight, which does not change       H [in, in]  2/n X^T X
           L [in, in]   lower triangular with L_ii = 1, and D diagonal: H = L D L^T
           E [out, in]  the errors W - Q of the columns that are rounded

Steps
 1. An input that was always zero (H_jj = 0) gets W_:j = 0 and H_jj = 1.
 2. sort: permute columns so that H_jj rises; the column with the largest H_jj is then rounded first.
 3. H <- H + damping * mean(H_jj) * I, then L and D. Scales and zero points are fitted to W,
    behind a clip to W as it was clipped.
 4. For each column i, from the last to the first: Q_:i = nearest(W_:i + sum over k > i of E_:k L_ki).
    The objective is sum over i of D_ii |E_:i + sum over k > i of E_:k L_ki|^2: each step makes its own term smallest.
    A block of B columns takes in the errors of all later blocks at once: B changes nothing but the order of summation.
 5. greedy_passes times, again from the last column to the first:
    Q_:i = nearest(W_:i + sum over k != i of E_:k H_ki / H_ii), the best value given all others.

Without step 5 this is GPTQ with static groups that takes the columns in reverse order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.input_stats import LinearStats, finite_hessian
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format
from quantbench.formats.grid_params import GridParams
from quantbench.formats.quantize import quantize
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.rounding.base import Compensating, Rounded, clipped
from quantbench.rounding.hessian import unit_cholesky, without_dead_inputs

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@component
class Ldlq(Compensating):
    """LDLQ rounding; LDLQ-RG with sort=true, greedy_passes=9.

    damping  added to the diagonal of H, relative to its mean; raised, and counted, as for GPTQ
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hessian"})

    sort: bool = False
    greedy_passes: Annotated[int, Field(ge=0)] = 0
    damping: Annotated[float, Field(gt=0)] = 0.01
    block_size: Annotated[int, Field(ge=1)] = 128

    def round_clipped(self, weight: Tensor, bound: Tensor | None, stats: LinearStats | None, format: Format) -> Rounded:
        """Round weight float32 [out, in]. Raises ValueError if the Hessian is missing or not finite."""
        width = weight.shape[1]
        W, H, dead = without_dead_inputs(weight, finite_hessian(stats))  # step 1
        order = torch.arange(width, device=W.device)
        if self.sort:
            order = H.diagonal().argsort(stable=True)  # step 2
        factor = unit_cholesky(H[order][:, order], self.damping)  # step 3
        if factor is None:
            return Rounded(quantize(clipped(weight, bound), format), {"nearest": 1})
        params, g = format.params(clipped(W, bound)), format.columns_per_group(width)
        groups = params.split()
        columns = _Columns.of(W[:, order], format, [groups[k] for k in (order // g).tolist()])
        columns.feed_back(factor.lower, self.block_size)  # step 4
        for _ in range(self.greedy_passes):
            if not columns.improve(factor.damped):  # step 5
                break
        codes = columns.codes[order.argsort()].t().contiguous()
        counts = {"damping_raised": factor.raised, "dead_inputs": dead}
        return Rounded(QuantizedWeight(codes, params, format), {name: count for name, count in counts.items() if count})


@dataclass(frozen=True)
class _Columns:
    """W, its codes and E, transposed [in, out] so that a column is contiguous; params [out, 1] of each column."""

    W: Tensor
    codes: Tensor
    E: Tensor
    format: Format
    params: Sequence[GridParams]

    @classmethod
    def of(cls, W: Tensor, format: Format, params: Sequence[GridParams]) -> _Columns:
        W = W.t().contiguous()
        return cls(W, torch.zeros_like(W, dtype=torch.uint8), torch.zeros_like(W), format, params)

    def feed_back(self, L: Tensor, block_size: int) -> None:
        """Step 4."""
        for end in range(len(self.W), 0, -block_size):
            start = max(end - block_size, 0)
            wanted = torch.addmm(self.W[start:end], L[end:, start:end].t(), self.E[end:])
            within = L[start:end, start:end].t().contiguous()
            for i in reversed(range(start, end)):
                later = within[i - start, i + 1 - start :]
                self._put(i, torch.addmv(wanted[i - start], self.E[i + 1 : end].t(), later))

    def improve(self, H: Tensor) -> bool:
        """One pass of step 5; whether anything changed."""
        before = self.codes.clone()
        for i in reversed(range(len(self.W))):
            others = (self.E.t() @ H[i]) / H[i, i] - self.E[i]
            self._put(i, self.W[i] + others)
        return not torch.equal(before, self.codes)

    def _put(self, i: int, values: Tensor) -> None:
        """Give column i the codes nearest to values [out]."""
        code = self.format.encode(values.unsqueeze(1), self.params[i])
        self.codes[i] = code.squeeze(1)
        torch.sub(self.W[i], self.format.decode(code, self.params[i]).squeeze(1), out=self.E[i])
