"""What data-free methods share that search better scales or zero points for an integer format, group by group."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from quantbench.core.component import Part
from quantbench.core.input_stats import LinearStats
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import with_params
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.rounding.base import Rounded, unfit_format

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


_STACKED_ROWS = 4096  # what is computed of 64 columns of them lies in a cache


class GridSearch(Part):
    """Rounding with searched parameters. It reads no data."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def refusal(self, recipe: Any) -> str | None:
        """Formats whose parameters are not stored as the search needs them."""
        return unfit_format(recipe, self.unfit)

    @staticmethod
    @abstractmethod
    def unfit(format: Format) -> str | None:
        """Why the search cannot be made for a format; None if it can, which is then an IntFormat."""

    @abstractmethod
    def search(self, weight: Tensor, format: IntFormat) -> Rounded:
        """Round weight float32 [out, in]."""

    def round(self, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:  # noqa: ARG002 - contract
        """Round weight float32 [out, in]; stats are not read and may be None."""
        if (reason := self.unfit(format)) is not None:
            raise ValueError(reason)
        assert isinstance(format, IntFormat)
        return self.search(weight, format)


def by_group(
    weight: Tensor, format: IntFormat, solve: Callable[[Tensor, GridParams, IntFormat], GridParams]
) -> QuantizedWeight:
    """The weight rounded with the parameters that `solve` finds for each group, given its columns and first fit."""
    return by_stack(weight, format, solve, rows=1)


def by_stack(
    weight: Tensor,
    format: IntFormat,
    solve: Callable[[Tensor, GridParams, IntFormat], GridParams],
    rows: int = _STACKED_ROWS,
) -> QuantizedWeight:
    """As `by_group`, with as many groups at once, one below the other, as have about so many rows, at least one.

    `solve` is given their columns [k out, g] and the first fit of each row.
    """
    out, width = len(weight), format.columns_per_group(weight.shape[1])
    at_once, whole = max(1, rows // out), weight.shape[1] // width
    groups, fitted = torch.split(weight, width, dim=1), format.params(weight).split()
    best: list[GridParams] = []
    for start in (*range(0, whole, at_once), *range(whole, len(groups))):
        stacked = slice(start, min(start + at_once, whole) if start < whole else start + 1)
        found = solve(torch.cat(groups[stacked]), GridParams.join(fitted[stacked], dim=0), format)
        best += [found.each(partial(_part, number, out)) for number in range(len(groups[stacked]))]
    return with_params(weight, GridParams.join(best), format)


def _part(number: int, rows: int, stacked: Tensor) -> Tensor:
    return stacked[number * rows : (number + 1) * rows]
