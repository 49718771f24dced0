"""HQQ: the zero point of each group is moved so that most weights are hit well and a few large errors count little.

Paper      Badri, Shaji: "Half-Quadratic Quantization of Large Machine Learning Models", 2023 (mobiusml.github.io,
           hqq_blog); the solver is that of its authors' code
Objective  min over z of sum |w - s (c - z)|^p over the weights w of a group, by half-quadratic splitting: a variable E
           takes up the errors, and its distance from W - s (C - z) costs beta

Symbols    W [out, g]  a group of columns    s, z [out, 1]  its scale, which is kept, and its zero point, a real number
           C [out, g]  codes                 E [out, g]     errors that are given way to

Steps      For each group, z being at first the zero point of the range, rounded or as it is:
 1. C = the nearest codes for z. Remember z in each row where sum |W - s (C - z)|^p is the smallest so far.
 2. E = shrink((W - s (C - z)) / u) u, with shrink(x) = sign(x) max(0, |x| - |x|^(p-1) / beta) and the unit u.
 3. z = mean over the columns of C - (W - E) / s, as it is stored; beta <- kappa beta; back to 1.
 4. The codes for the z remembered: in no row is the objective larger than at the start.
    A group ends when no row of it has a smaller objective than before. A row whose z does not change, and whose errors
    are too small to be given way to, is left out from then on.

The unit   The authors' code has u = 1. Then E is 0 wherever |x|^(2-p) < 1 / beta, with their options for all errors
           below .17, hence for all errors of usual weights: what is left is to make each group's mean error 0. With
           u = s (`unit: step`), errors above .17 steps of the grid are given way to, whatever the scale of the weights.

The start  The authors' code rounds the first zero points at 4 bits, and at no other width: zero is on the grid then,
           and most weights are near it.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.rounding.base import Rounded
from quantbench.rounding.search import GridSearch, by_stack

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


WORTH_IT = 0.8
"""Rows that are settled are left out when the share of the others is below this: to leave them out takes time, too."""


@component
class Hqq(GridSearch):
    """HQQ rounding. It reads no data.

    p           the norm: 1 is the sum of absolute errors, a smaller one counts large errors less
    beta        of the first iteration
    kappa       by which beta grows in each iteration
    iterations  at most; they end when one improves no row
    unit        of the errors that beta is compared with: weight (the authors') or step of the grid
    start       of the zero points: the integer nearest to that of the range (rounded), or that one (real)
    """

    p: Annotated[float, Field(gt=0, le=1)] = 0.7
    beta: Annotated[float, Field(gt=0)] = 10.0
    kappa: Annotated[float, Field(ge=1)] = 1.01
    iterations: Annotated[int, Field(ge=1)] = 20
    unit: Literal["weight", "step"] = "weight"
    start: Literal["rounded", "real"] = "rounded"

    @staticmethod
    def unfit(format: Format) -> str | None:
        """Why the format has no real zero point of its own for every row and group; None if it has."""
        if not isinstance(format, IntFormat) or format.zero_rounding or format.symmetric:
            return "HQQ moves zero points as reals: it needs an IntFormat with zero_rounding=false, symmetric=false"
        if format.group_size == "tensor" or format.block_rows != 1 or format.double_quantization is not None:
            return "HQQ gives every row and group its own zero point: no tensor scale, block_rows, double_quantization"
        return None

    def search(self, weight: Tensor, format: IntFormat) -> Rounded:
        """The steps of this file for weight float32 [out, in]."""
        return Rounded(by_stack(weight, format, partial(self._solve, len(weight))))

    def _solve(self, out: int, W: Tensor, params: GridParams, format: IntFormat) -> GridParams:
        """Steps 1 to 3 for groups of `out` rows, one below the other: their parameters with the best zero points.

        A group ends when an iteration improves none of its rows.
        """
        assert params.zero is not None
        z = params.zero.round() if self.start == "rounded" else params.zero
        start = now = dataclasses.replace(params, zero=z)
        best_z, least, beta = z.clone(), torch.full_like(z, torch.inf), self.beta
        small = self._given_no_way()
        open_rows = torch.arange(len(W), device=W.device)
        group = open_rows // out
        goes_on = torch.ones(len(W) // out, dtype=torch.bool, device=W.device)
        for _ in range(self.iterations + 1):
            assert now.zero is not None
            s, z = now.scale, now.zero
            u = s if self.unit == "step" else None  # 1
            C = format.grid.levels(W, now)
            error = (C - z).mul_(-s).add_(W)
            size = error.abs()
            objective = size.pow(self.p).sum(1, keepdim=True)  # step 1
            before = least[open_rows]
            better = (objective < before) & goes_on[group, None]
            goes_on = torch.zeros_like(goes_on).index_fill_(0, group[better[:, 0]], True)
            if not bool(goes_on.any()):
                break
            least[open_rows] = torch.where(better, objective, before)
            best_z[open_rows] = torch.where(better, z, best_z[open_rows])
            no_way = size.amax(1, keepdim=True) < (small if u is None else small * u)
            quiet = int(no_way.sum())
            kept = W if quiet == len(W) else W - self._given_way(error, size, u, beta)  # step 2
            now = format.stored(dataclasses.replace(now, zero=C.sub_(kept / s).mean(1, keepdim=True)))  # step 3
            beta *= self.kappa
            assert now.zero is not None
            moving = goes_on[group]
            if quiet:
                moving &= ((now.zero != z) | ~no_way)[:, 0]
            if int(moving.sum()) < WORTH_IT * len(W):
                chosen = partial(torch.index_select, dim=0, index=moving.nonzero()[:, 0])
                W, now, open_rows, group = chosen(W), now.each(chosen), chosen(open_rows), chosen(group)
        return dataclasses.replace(start, zero=best_z)

    def _given_way(self, error: Tensor, size: Tensor, u: Tensor | None, beta: float) -> Tensor:
        """E of step 2, for errors of this size in weights."""
        if u is None:
            return _shrunk(error, size, self.p, beta)
        return shrink(error / u, self.p, beta).mul_(u)

    def _given_no_way(self) -> float:
        """Errors below it, in units, are given no way in any iteration: a zero point that stays then stays for good."""
        largest_beta = self.beta * self.kappa**self.iterations
        return float(0.999 * largest_beta ** (-1 / (2 - self.p)))


def shrink(x: Tensor, p: float, beta: float) -> Tensor:
    """An approximate minimiser over e of |e|^p + beta/2 (e - x)^2: exact (soft thresholding) for p = 1."""
    return _shrunk(x, x.abs(), p, beta)


def _shrunk(x: Tensor, size: Tensor, p: float, beta: float) -> Tensor:
    return torch.sub(size, size.pow(p - 1).div_(beta)).clamp_(min=0).copysign_(x)
