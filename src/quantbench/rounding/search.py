"""What data-free methods share that search better scales or zero points for an integer format, group by group."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
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
    groups = torch.split(weight, format.columns_per_group(weight.shape[1]), dim=1)
    fitted = format.params(weight).split()
    best = [solve(W.contiguous(), params, format) for W, params in zip(groups, fitted, strict=True)]
    return with_params(weight, GridParams.join(best), format)
