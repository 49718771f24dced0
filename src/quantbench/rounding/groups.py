"""The groups of columns that share a scale in GPTQ (`quantbench.rounding.gptq`), and how each is fitted and rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantbench.formats.base import Format
from quantbench.formats.grid import IntGrid
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """What each column is rounded to. A method that fits or rounds in another way overrides a step.

    of      the group of each column, in the order of rounding
    params  the groups' parameters [out, 1] each: complete from the start if static, else added as groups begin
    """

    format: Format
    of: list[int]
    params: dict[int, GridParams]

    def fit(self, W: Tensor, columns: Tensor) -> GridParams:  # noqa: ARG002 - for methods that weight columns
        """The parameters of columns W [out, n], which are rounded as the columns-th, int64 [n]."""
        return self.format.params(W)

    def column(self, i: int, w: Tensor) -> tuple[Tensor, Tensor]:
        """Step 4b: the codes and the values [out, 1] that column w [out, 1] gets as the i-th."""
        params = self.params[self.of[i]]
        codes = self.format.encode(w, params)
        return codes, self.format.decode(codes, params)

    @property
    def grid(self) -> IntGrid | None:
        """The grid of all columns, where step 4b is that of an integer grid and nothing else."""
        if isinstance(self.format, IntFormat) and type(self).column is Groups.column:
            return self.format.grid
        return None


@dataclass(frozen=True)
class WeightedGroups(Groups):
    """Groups whose ranges are searched with weights; importance [in]: H_jj of each column relative to their mean."""

    importance: Tensor

    def fit(self, W: Tensor, columns: Tensor) -> GridParams:
        """As without, but weighted."""
        assert isinstance(self.format, IntFormat)
        return self.format.params(W, self.importance[columns])
