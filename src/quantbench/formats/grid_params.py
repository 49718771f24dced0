"""What fixes the grids of a weight's groups: scales, zero points, and what some formats have beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@dataclass(frozen=True)
class GridParams:
    """What fixes the grids of g groups of columns; every tensor float32 [out, g], or [1, g] where rows share it.

    scale   holds values as they are stored (already rounded to the stored dtype)
    zero    zero points, None where the format has none
    qmax    highest level 2^b - 1 of each group, None where all groups have the format's own number of bits
    scale_runs, zero_runs  [2 r, g] grids of double-quantized scales and zero points, None without
    global_scale  [1, g] or [out, g]: a second factor of the scales, the same for all groups (NVFP4), None without one
    """

    scale: Tensor
    zero: Tensor | None = None
    qmax: Tensor | None = None
    scale_runs: Tensor | None = None
    zero_runs: Tensor | None = None
    global_scale: Tensor | None = None

    def group(self, index: int) -> GridParams:
        """The parameters of one group, [out, 1] each: broadcastable to any slice of that group's columns."""
        return self.each(lambda t: t[:, index : index + 1])

    def columns(self, group_index: Tensor) -> GridParams:
        """One column of parameters per weight column, given the group each column belongs to [in]."""
        return self.each(lambda t: t.index_select(1, group_index))

    def split(self) -> list[GridParams]:
        """One contiguous [out, 1] for each group: a column's operations then read memory in order."""
        return [self.group(k).each(lambda t: t.contiguous()) for k in range(self.scale.shape[1])]

    @staticmethod
    def join(groups: Sequence[GridParams], dim: int = 1) -> GridParams:
        """The groups' parameters side by side; dim=0: one below the other."""
        given = {f.name: [getattr(p, f.name) for p in groups] for f in fields(GridParams)}
        return GridParams(**{name: torch.cat(ts, dim) for name, ts in given.items() if ts[0] is not None})

    def each(self, change: Callable[[Tensor], Tensor]) -> GridParams:
        """`change` applied to every tensor there is."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return GridParams(**{name: change(t) for name, t in given.items() if t is not None})
