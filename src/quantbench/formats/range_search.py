"""The search for a range of an integer grid that fits the values better than from smallest to largest.

Symbols    v [n]  the values of a group, w [n] their weights (1 unless given)      e [n]  rounding errors for a range
           S      sum of w |e|^2.4; what is searched is the range with the smallest, as in the GPTQ authors' code

`every_range` tries all ranges one by one, and takes a power of 2.4 of every error: most of its time. `smallest_error`
finds the same range with few such powers, from bounds that cost little:

 1. Let y = e^2 = 2^E (1 + t), 0 <= t < 1. The bits of y, read as an integer, are 2^23 (E + 127 + t), and E + t is less
    than log2 y by at most 0.0861. So A = sum of w y 2^((E + t) / 5) is a lower bound of S, and 1.012 A an upper one.
 2. The largest value exceeds the range by a, the smallest by b, and S^(1/2.4) is at least
    (2 w)^(1/2.4) ((a^2 + b^2) / 2)^(1/2), w being the smaller of their weights (means of powers). This grows as ranges
    shrink: where it is more than what another range reaches, no smaller range needs be looked at.

The ranges whose lower bound is above the least upper one are out; the others, a few for each group, are compared
as `every_range` does. All comparisons have margins for the errors of float32 arithmetic.

On a processor the compiled kernel `quantbench.kernels.ranges` goes further: it leaves a single range for nearly all
groups, by closer bounds; where it leaves several, these are compared as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantbench.core.chunks import chunk_elements
from quantbench.core.lazy import lazy_module
from quantbench.formats.grid import IntGrid
from quantbench.formats.grid_params import GridParams
from quantbench.formats.range_kernel import ranges_left

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

NORM = 2.4
"""Errors are compared by the sum of |error|^2.4, as in the GPTQ authors' code."""

BLOCK = 4
"""So many ranges are looked at before the groups that need no further ones are left out."""

_APART = 1.0121 ** (1 / NORM)  # the bounds of 1., of S^(1 / 2.4)
_MARGIN = 2.0**-12  # of S^(1 / 2.4), for sums; 2^-30 more for each value
_ROUNDOFF = 2.0**-20  # of the largest value, for each error
_UNDERFLOW = 2.0**-52  # errors below have no power of 2.4 in float32


def smallest_error(
    grid: IntGrid,
    values: Tensor,
    bounds: tuple[Tensor, Tensor],
    factors: Sequence[float],
    importance: Tensor | None = None,
) -> GridParams:
    """The parameters of the range factor * bounds with the smallest sum of importance |error|^2.4; the first of equals.

    values [.., columns]; bounds [.., 1] each, one range for each run of columns, that contains 0; importance >= 0, of
    a shape that broadcasts to that of values, or None for 1. The same as `every_range`: bit for bit where the chunks
    of both add up in one order, as on a processor; elsewhere up to that order.
    """
    n, tried = values.shape[-1], torch.tensor(list(factors), device=values.device)
    weights = None if importance is None else importance.expand_as(values)
    rows = max(1, chunk_elements(values.device) // max(1, values[0].numel()))
    found = []
    for start in range(0, len(values), rows):
        low, high, v = (t[start : start + rows].reshape(-1, t.shape[-1]) for t in (*bounds, values))
        w = None if weights is None else weights[start : start + rows].reshape(-1, n)
        found.append(_Groups(grid, v, low, high, w).best(tried))
    scale = torch.cat([one.scale for one in found]).reshape(bounds[0].shape)
    zeros = [one.zero for one in found if one.zero is not None]
    return GridParams(scale, torch.cat(zeros).reshape(scale.shape) if zeros else None)


def every_range(
    grid: IntGrid,
    values: Tensor,
    bounds: tuple[Tensor, Tensor],
    factors: Sequence[float],
    importance: Tensor | None = None,
) -> GridParams:
    """What `smallest_error` finds, by trying one range after another on all values."""
    low, high = bounds
    best = grid.fit(low, high)
    least = torch.full_like(low, torch.inf)
    for factor in factors:
        tried = grid.fit(low * factor, high * factor)
        total = _error(grid, values, tried, importance)
        better = total < least
        least = torch.where(better, total, least)
        best = _where(better, tried, best)
    return best


def _error(grid: IntGrid, values: Tensor, params: GridParams, importance: Tensor | None) -> Tensor:
    """S [.., 1]."""
    error = grid.values(grid.levels(values, params), params).sub_(values).abs_().pow_(NORM)
    if importance is not None:
        error.mul_(importance)
    return error.sum(-1, keepdim=True)


def _where(which: Tensor, one: GridParams, other: GridParams) -> GridParams:
    scale = torch.where(which, one.scale, other.scale)
    if one.zero is None or other.zero is None:
        return GridParams(scale)
    return GridParams(scale, torch.where(which, one.zero, other.zero))


@dataclass(frozen=True)
class _Groups:
    """m groups: values v and weights w [m, n], bounds low, high [m, 1]."""

    grid: IntGrid
    v: Tensor
    low: Tensor
    high: Tensor
    w: Tensor | None

    def of(self, rows: Tensor) -> _Groups:
        """Some of the groups, int64 [r]."""
        w = None if self.w is None else self.w[rows]
        return _Groups(self.grid, self.v[rows], self.low[rows], self.high[rows], w)

    def best(self, factors: Tensor) -> GridParams:
        """The parameters [m, 1] of the best of the ranges that are `factors` [k] as large."""
        found = ranges_left(self.grid, self.v, (self.low, self.high), factors, self.w)
        if found is None:
            lower, reached = self._lower(factors)
            return self._compared(factors, lower <= reached)
        only, left = found
        factor = factors[only].unsqueeze(1)
        params = self.grid.fit(self.low * factor, self.high * factor)
        several = (only < 0).nonzero().squeeze(1)
        if len(several):
            compared = self.of(several)._compared(factors, left[several])
            params.scale[several] = compared.scale
            if params.zero is not None and compared.zero is not None:
                params.zero[several] = compared.zero
        return params

    def _compared(self, factors: Tensor, left: Tensor) -> GridParams:
        """The best of the ranges that are left, bool [m, k]."""
        S = torch.full(left.shape, torch.inf, device=left.device)
        pairs = torch.split(left.nonzero(), max(1, self.v.numel() // self.v.shape[1]))
        for rows, which in (pair.unbind(1) for pair in pairs):
            chosen, factor = self.of(rows), factors[which].unsqueeze(1)
            params = self.grid.fit(chosen.low * factor, chosen.high * factor)
            total = _error(self.grid, chosen.v, params, chosen.w).nan_to_num(torch.inf, torch.inf)
            S[rows, which] = total.squeeze(1)
        least, index = S.min(1, keepdim=True)  # the first of equals
        factor = factors[index]
        found = self.grid.fit(self.low * factor, self.high * factor)
        return _where(least.isfinite(), found, self.grid.fit(self.low, self.high))

    def _lower(self, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Lower bounds [m, k] of S^(1/2.4), infinite for ranges that 2. excludes; what one of them reaches [m, 1]."""
        count, (n, end) = len(factors), (self.v.shape[1], self._ends())
        lower = torch.full((len(self.v), count), torch.inf, device=self.v.device)
        reached = torch.full_like(self.low, torch.inf)
        margin, slack = _MARGIN + n * 2.0**-30, self._slack()
        rows, left = torch.arange(len(self.v), device=self.v.device), self
        for start in range(0, count, BLOCK):
            block = slice(start, start + BLOCK)
            params = self.grid.fit(left.low * factors[block], left.high * factors[block])
            norm = (left._sums(params).log2_() / NORM).exp2_() * params.scale
            norm = norm.masked_fill_(norm.isnan(), torch.inf)  # the scale overflows
            lower[rows, block] = norm * (1 - margin) - slack[rows]
            least = norm.amin(1, keepdim=True) * (_APART * (1 + margin)) + slack[rows]
            reached[rows] = reached[rows].minimum(least)
            if start + BLOCK < count:
                further = end.beyond(float(factors[start + BLOCK :].max()))[rows]
                going = (further * (1 - margin) <= reached[rows] + slack[rows]).squeeze(1)
                if not bool(going.any()):
                    break
                if int(going.sum()) < 0.8 * len(rows):
                    rows, left = rows[going], left.of(going.nonzero().squeeze(1))
        return lower, reached

    def _slack(self) -> Tensor:
        """How far S^(1/2.4) [m, 1] can be from what is computed of it, beside relative errors."""
        mass = torch.full_like(self.low, self.v.shape[1]) if self.w is None else self.w.sum(1, keepdim=True)
        reach = torch.maximum(-self.low, self.high).maximum(self.v.abs().amax(1, keepdim=True))
        return mass.pow(1 / NORM) * (_ROUNDOFF * reach + _UNDERFLOW)

    def _ends(self) -> _Ends:
        grid, (smallest, largest) = self.grid, self.v.aminmax(dim=1, keepdim=True)
        (lowest, highest), eps = grid.span, torch.finfo(getattr(torch, grid.scale_dtype)).eps
        if grid.convention is None:
            step = (self.high - self.low) / highest
            half = (0.5 + highest * eps) * step
            top, bottom = self.high + half, half - self.low
        else:
            step = grid.fit(self.low, self.high).scale
            top, bottom = (highest - grid.middle) * step, (grid.middle - lowest) * step
        w = torch.ones_like(self.low)
        if self.w is not None:
            w = self.w.gather(1, self.v.argmin(1, keepdim=True)).minimum(
                self.w.gather(1, self.v.argmax(1, keepdim=True))
            )
        return _Ends(largest, -smallest, top * (1 + eps), bottom * (1 + eps), 2.0**-24 * highest, (2 * w).pow(1 / NORM))

    def _sums(self, params: GridParams) -> Tensor:
        """A [m, k] for errors in steps of the grids of k ranges, params [m, k]."""
        A: Tensor = self.v.new_empty(params.scale.shape[1], len(self.v))
        step = 1 / params.scale
        x, y = torch.empty_like(self.v), torch.empty_like(self.v)
        for k in range(len(A)):
            zero = self.grid.middle if params.zero is None else params.zero[:, k : k + 1]
            torch.mul(self.v, step[:, k : k + 1], out=x).add_(zero)
            torch.round(x, out=y).clamp_(*self.grid.span)
            x.sub_(y).square_()
            y.copy_(x.view(torch.int32)).mul_(0.2 * 2.0**-23).exp2_().mul_(x)
            if self.w is not None:
                y.mul_(self.w)
            torch.sum(y, dim=1, out=A[k])
        return A.t().mul(2.0 ** (-0.2 * 127))


@dataclass(frozen=True)
class _Ends:
    """Of each group [m, 1]: its largest value and minus its smallest; how far up and down a grid of the whole range
    reaches at most, smaller ranges' in proportion, but for `least`; the factor (2 w)^(1/2.4) of 2.
    """

    up: Tensor
    down: Tensor
    top: Tensor
    bottom: Tensor
    least: float
    factor: Tensor

    def beyond(self, factor: float) -> Tensor:
        """2. for ranges of at most `factor` times the whole [m, 1]."""
        a = (self.up - self.top * factor - self.least).clamp_(min=0)
        b = (self.down - self.bottom * factor - self.least).clamp_(min=0)
        return ((a.square() + b.square()) / 2).sqrt_() * self.factor
