"""Rounding to nearest (RTN): every element on its own, no calibration data."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from quantbench.core.component import Part, component
from quantbench.core.input_stats import LinearStats
from quantbench.formats.base import Format
from quantbench.formats.quantize import quantize
from quantbench.rounding.base import Rounded

if TYPE_CHECKING:
    from torch import Tensor


@component
class Nearest(Part):
    """Each weight goes to the nearest value of its group's grid: the data-free baseline."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def round(self, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:  # noqa: ARG002 - contract
        """Round weight float32 [out, in]; stats are not read and may be None."""
        return Rounded(quantize(weight, format))
