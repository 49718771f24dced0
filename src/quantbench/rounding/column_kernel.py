"""GPTQ's step 4 on integer grids of a processor, by the compiled kernel `quantbench.kernels.columns`.

What `quantbench.rounding.gptq` does column by column is done here for PANEL columns at a time: the kernel rounds them
and spreads their errors among them; a product of matrices spreads these over the rest of the block, another one those
of the block over the rest of the weight. A panel ends where a group begins that is still to be fitted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from quantbench.core.lazy import lazy_module
from quantbench.formats.grid import IntGrid
from quantbench.formats.grid_params import GridParams
from quantbench.kernels.loading import in_parts, kernels

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

PANEL = 32
LEAST = 64  # rows for each thread

Fit = Callable[["Tensor", int], GridParams]
"""The parameters of a group that begins: of its columns [n, out] as updated so far, the first being the i-th."""


def compiled_here() -> bool:
    """Whether there is a kernel."""
    return kernels("columns") is not None


def round_panels(
    W: Tensor,
    U: Tensor,
    grid: IntGrid,
    of: Sequence[int],
    params: dict[int, GridParams],
    fit: Fit,
    block_size: int,
) -> Tensor:
    """The codes uint8 [in, out] of W float32 [in, out], which is used up, columns being rows here.

    U [in, in]; of: the group of each column; params: those of groups, to which are added what `fit` finds. Needs
    `compiled_here`.
    """
    (width, out), sizes = W.shape, Counter(of)
    codes = torch.empty(W.shape, dtype=torch.uint8)
    grids = _Grids(grid, max(of) + 1, out)
    for group, given in params.items():
        grids.add(group, given)
    for start in range(0, width, block_size):
        end = min(start + block_size, width)
        E = torch.empty_like(W[start:end])
        i = start
        while i < end:
            group = of[i]
            if group not in params:  # step 4a
                columns = slice(i, i + sizes[group])
                updated = W[columns]
                if columns.stop > end:  # those in later blocks have not had the errors of this one
                    updated = updated.clone()
                    updated[end - i :].addmm_(U[start:i, end : columns.stop].t(), E[: i - start], alpha=-1)
                params[group] = fit(updated, i)
                grids.add(group, params[group])
            stop = next((k for k in range(i, min(i + PANEL, end)) if of[k] not in params), min(i + PANEL, end))
            errors = E[i - start : stop - start]
            _round(W[i:stop], U[i:stop, i:stop], grids, of[i:stop], codes[i:stop], errors)
            W[stop:end].addmm_(U[i:stop, stop:end].t(), errors, alpha=-1)
            i = stop
        W[end:].addmm_(U[start:end, end:].t(), E, alpha=-1)
    return codes


class _Grids:
    """Scales and zero points of groups, [groups, out]."""

    def __init__(self, grid: IntGrid, count: int, out: int) -> None:
        self.grid = grid
        self.scales = torch.ones(count, out)
        self.zeros = torch.full((count, out), grid.middle)

    def add(self, group: int, params: GridParams) -> None:
        """The parameters [out, 1] or [1, 1] of one group."""
        self.scales[group] = params.scale[:, 0]
        if params.zero is not None:
            self.zeros[group] = params.zero[:, 0]


def _round(W: Tensor, U: Tensor, grids: _Grids, of: Sequence[int], codes: Tensor, E: Tensor) -> None:
    kernel, grid = kernels("columns"), grids.grid
    assert kernel is not None
    given = [t.numpy() for t in (W, U.contiguous(), grids.scales, grids.zeros, torch.tensor(of))]
    fixed = (*map(float, grid.span), grid.zero_rounding, codes.numpy(), E.numpy())

    def part(start: int, end: int) -> None:
        kernel.round_columns(start, end, *given, *fixed)

    in_parts(part, W.shape[1], torch.get_num_threads(), LEAST)
