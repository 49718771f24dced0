"""SliM-LLM: salient groups of columns get a bit more, unsalient ones a bit less; then GPTQ in salience-weighted ranges.

Paper      Huang, Qin, Liu, Li, Liu, Benini, Magno, Qi: "SliM-LLM: Salience-Driven Mixed-Precision Quantization for
           Large Language Models", ICML 2025 (arXiv 2405.14917), with its authors' code
Objective  allocation: min over p of KL(softmax(X Q_p^T) || softmax(X W^T)), the softmax over the outputs of a token
           ranges: min over tau of sum over unsalient w of |q - w|^2.4 + lambda_s * the same over salient w
           rounding: that of GPTQ

Symbols    W [out, in], H, U, u = diag U: as in rounding/gptq.py       X [k, in]  sampled calibration inputs
           N  the format's bits       g  columns per group      G  whole groups (a short last one keeps N bits)
           delta_ij = w_ij^2 / u_j^2 the salience of a weight (u_j^2 is [H^-1]_jj once the columns before j are fixed)
           Q_p [out, in]             W rounded to nearest, its p most salient groups with N + 1 bits, its p least
                                     salient ones with N - 1, the others with N: the mean is N for every p

Steps
 1. Order the groups by the sum of delta over their columns.
 2. For p = 0 (all groups alike) to G / 2: KL of Q_p, averaged over X. Take the p with the smallest.
 3. GPTQ with dynamic groups, a block being a group. When a group begins, its weights as updated by then give the range
    [low, high] of each row, and the salience of each weight: salient is delta > mean + 2 standard deviations over the
    group. tau in [1 - tau_range, 1 + tau_range] is searched, row by row, for the range [tau low, tau high].
    A group of one bit has no range: its two values are those of formats/mixed.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.input_stats import LinearStats
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format
from quantbench.formats.grid import containing_zero
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.mixed import MixedIntFormat
from quantbench.formats.quantize import quantize
from quantbench.formats.range_search import smallest_error
from quantbench.rounding.base import Compensating, Rounded, clipped, unfit_format
from quantbench.rounding.gptq import Columns
from quantbench.rounding.groups import Groups

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

Z_SCORE = 2.0
"""How many standard deviations above the mean a weight's salience is that counts as salient in its group."""

TOKENS_AT_A_TIME = 256
"""Step 2 holds the outputs of so many tokens."""


@component
class SlimLlm(Compensating):
    """SliM-LLM rounding.

    allocate        false: p = 0, all groups have N bits
    salience        "cholesky": u_j^2 = U_jj^2, as in its authors' code; "diag_inverse": u_j^2 = [H^-1]_jj
    tau_range       how far from 1 tau is searched; 0 takes the range from smallest to largest weight
    tau_steps       values of tau on either side of 1
    salient_weight  lambda_s; at 1, its authors' default, it does not matter which weights are salient
    damping         as for GPTQ, with its fallbacks
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hessian", "rows"})

    allocate: bool = True
    salience: Literal["cholesky", "diag_inverse"] = "cholesky"
    tau_range: Annotated[float, Field(ge=0, lt=1)] = 0.1
    tau_steps: Annotated[int, Field(ge=1)] = 50
    salient_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    damping: Annotated[float, Field(gt=0)] = 0.01

    def refusal(self, recipe: Any) -> str | None:
        """It makes its own format of one that says N, the group size and the dtype of the scales."""
        return unfit_format(recipe, unsuitable)

    def round_clipped(self, weight: Tensor, bound: Tensor | None, stats: LinearStats | None, format: Format) -> Rounded:
        """Round weight float32 [out, in]. Raises ValueError if a statistic is missing or not finite."""
        if (reason := unsuitable(format)) is not None:
            raise ValueError(reason)
        assert isinstance(format, IntFormat)
        assert isinstance(format.group_size, int)
        problem = Columns.of(weight, stats, "natural", format.group_size, self.damping, bound)
        if problem is None:
            return Rounded(quantize(clipped(weight, bound), format), {"nearest": 1})
        assert stats is not None
        U, W, g = problem.U, problem.original(), format.group_size
        u = U.diagonal() if self.salience == "cholesky" else U.square().sum(0).sqrt()
        order = salient_groups((W / u).square().sum(0), g)  # step 1
        count = -(-W.shape[1] // g)
        p = 0
        if self.allocate:
            losses = allocation_losses(W, stats.require("rows"), order, format)  # step 2
            p = int(losses.argmin())
        mixed = MixedIntFormat(
            group_bits=allocated(format.bits, count, order, p), group_size=g, scale_dtype=format.scale_dtype
        )
        groups = _MixedGroups(mixed, [j // g for j in range(W.shape[1])], {}, u, self)
        return problem.round(groups, g, permuted=False)  # step 3

    def taus(self) -> list[float]:
        """The values that are searched, 1 first: of equals it is taken."""
        away = [self.tau_range * k / self.tau_steps for k in range(1, self.tau_steps + 1)] if self.tau_range else []
        return [1.0, *(1 + t for t in away), *(1 - t for t in away)]


def unsuitable(format: Format) -> str | None:
    """Why SliM-LLM cannot start from this format; None if it can."""
    if not (isinstance(format, IntFormat) and isinstance(format.group_size, int) and 2 <= format.bits <= 7):
        return "SliM-LLM gives groups one bit more or less: it needs integers of 2 to 7 bits and a number as group_size"
    plain = IntFormat(bits=format.bits, group_size=format.group_size, symmetric=False, scale_dtype=format.scale_dtype)
    if format != plain:
        return "SliM-LLM makes a format of its own: it needs symmetric=false, range=minmax and no further settings"
    return None


def salient_groups(column_salience: Tensor, group_size: int) -> list[int]:
    """Step 1: the whole groups, the most salient first, given the salience of each column [in]."""
    whole = len(column_salience) // group_size
    total = column_salience[: whole * group_size].reshape(whole, group_size).sum(1)
    order: list[int] = total.argsort(descending=True, stable=True).tolist()
    return order


def allocated(bits: int, count: int, order: Sequence[int], p: int) -> tuple[int, ...]:
    """The bits of `count` groups for a p; order: the groups that take part, the most salient first."""
    chosen = [bits] * count
    for k in range(p):
        chosen[order[k]] = bits + 1
        chosen[order[-1 - k]] = bits - 1
    return tuple(chosen)


def allocation_losses(weight: Tensor, rows: Tensor, order: Sequence[int], format: IntFormat) -> Tensor:
    """Step 2: the mean KL divergence, float64 [G // 2 + 1], for p = 0, 1, ..

    From p - 1 to p only two groups change, so that X Q_p^T takes two products of the width of a group.
    """
    assert isinstance(format.group_size, int)
    g, most = format.group_size, len(order) // 2
    fewer, same, more = (_nearest(weight, bits, format) for bits in range(format.bits - 1, format.bits + 2))
    losses = torch.zeros(most + 1, dtype=torch.float64)
    for X in torch.split(rows, TOKENS_AT_A_TIME):
        reference = (X @ weight.t()).log_softmax(-1)
        Y = X @ same.t()
        for p in range(most + 1):
            if p > 0:
                for k, other in ((order[p - 1], more), (order[-p], fewer)):
                    group = slice(k * g, (k + 1) * g)
                    Y.addmm_(X[:, group], (other - same)[:, group].t())
            log_q = Y.log_softmax(-1)
            losses[p] += float((log_q.exp() * (log_q - reference)).sum())
    return losses / len(rows)


def _nearest(weight: Tensor, bits: int, format: IntFormat) -> Tensor:
    assert isinstance(format.group_size, int)
    count = -(-weight.shape[1] // format.group_size)
    alike = MixedIntFormat(group_bits=(bits,) * count, group_size=format.group_size, scale_dtype=format.scale_dtype)
    return quantize(weight, alike).dequantize()


@dataclass(frozen=True)
class _MixedGroups(Groups):
    """GPTQ's groups, each with its own number of bits; u [in] as in the symbols above."""

    u: Tensor
    options: SlimLlm

    def fit(self, W: Tensor, columns: Tensor) -> GridParams:
        """Step 3: the parameters of the group W [out, g] of these columns."""
        assert isinstance(self.format, MixedIntFormat)
        bits = self.format.group_bits[self.of[int(columns[0])]]
        plain = self.format.group_params(W, bits)
        if bits == 1 or self.options.tau_range == 0:
            return plain
        delta = (W / self.u[columns]).square()
        importance = torch.where(salient(delta), self.options.salient_weight, 1.0)
        bounds = containing_zero(*W.aminmax(dim=1, keepdim=True))
        found = smallest_error(self.format.grid(bits), W, bounds, self.options.taus(), importance)
        return self.format.with_qmax(found, bits)


def salient(delta: Tensor) -> Tensor:
    """Which weights of a group stand out by their salience; none where all are alike."""
    if delta.numel() < 2:
        return torch.zeros_like(delta, dtype=torch.bool)
    return delta > delta.mean() + Z_SCORE * delta.std()
