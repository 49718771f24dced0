"""A weight on its grid, and what it stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantbench.formats.base import Format, default_group_index
from quantbench.formats.blocks import BlockGrid
from quantbench.formats.corrections import Correction
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.nearest_kernel import nearest_values

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight on its grid: codes uint8 [out, in], params [out, g] each, and the group of each column [in] where that
    is not simply column // group_size (act-order with dynamic groups).

    corrections: what a rounding method keeps beside the grid (outliers, low-rank factors, another basis), in the order
    in which they are applied to the values of the codes.
    """

    codes: Tensor
    params: GridParams
    format: Format
    group_index: Tensor | None = None
    corrections: tuple[Correction, ...] = ()

    def on_grid(self) -> Tensor:
        """The values of the codes alone, float32 [out, in]."""
        if self.group_index is not None:
            return self.format.decode(self.codes, self.params.columns(self.group_index.long()))
        if isinstance(self.format, IntFormat):
            columns = self.format.columns_per_group(self.codes.shape[1])
            found = nearest_values(self.codes, self.params, self.format.grid, columns)
            if found is not None:
                return found
        return by_groups(self.format.decode, self.codes, self.params, self.format)

    def dequantize(self) -> Tensor:
        """The weight this stands for, float32 [out, in]."""
        weight = self.on_grid()
        for correction in self.corrections:
            weight = correction.apply(weight)
        return weight

    def numel(self) -> int:
        """Elements of the weight this stands for; columns that were kept count, too."""
        rows, columns = self.codes.shape
        return rows * (columns + sum(correction.columns_added for correction in self.corrections))

    def bits_per_weight(self) -> float:
        """Effective bits, everything stored counted: codes, scales, zero points, group index (int32), corrections."""
        out_features, in_features = self.codes.shape
        extra = 0 if self.group_index is None else 32 * in_features
        extra += sum(correction.bits() for correction in self.corrections)
        on_grid = self.format.bits_per_weight((out_features, in_features))
        return on_grid * (self.codes.numel() / self.numel()) + extra / self.numel()


def by_groups(
    change: Callable[[Tensor, GridParams], Tensor], values: Tensor, params: GridParams, format: Format
) -> Tensor:
    """`change`, which encodes or decodes, applied to values [out, in] with the parameters [out, g] of their groups."""
    width = values.shape[1]
    columns = format.columns_per_group(width)
    if isinstance(format, BlockGrid) and width % columns == 0:  # element by element: no copy for each column
        groups = values.reshape(len(values), -1, columns)
        return change(groups, params.each(lambda t: t.unsqueeze(2))).flatten(1)
    return change(values, params.columns(default_group_index(width, columns).to(values.device)))
