"""MX formats: mxfp4, mxfp6, mxfp8, mxint8: groups of 32 with power-of-two scales.

Source  Open Compute Project: "Microscaling Formats (MX) Specification", v1.0, 2023; Rouhani et al., arXiv 2310.10537
Grid    value = element * 2^E, E one byte (E8M0) for each group of k = 32 columns

    floor  E = floor(log2 max|w|) - floor(log2 m), m the largest element: the specification's rule. What lies above
           m 2^E saturates: for e2m1 up to a quarter of the largest weight is lost.
    ceil   the smallest E with max|w| <= m 2^E: nothing saturates, but the step may be twice as large. Known as RCEIL.

Groups along a row whose width is no multiple of k end with a short one, as if filled up with zeros, which changes no E:
the specification has only whole groups, and layers of small models need not be multiples of 32. E is at least -126, not
-127, so that every scale is a normal float32, and never so large that m 2^E were infinite. A group of zeros has E = 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.lazy import lazy_module
from quantbench.formats.blocks import ByteScales
from quantbench.formats.grid_params import GridParams
from quantbench.formats.values import ELEMENTS, ElementCodes, Elements

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@component
class MxFormat(ElementCodes, ByteScales):
    """element: mxfp4 has e2m1, mxfp6 e2m3 or e3m2, mxfp8 e4m3 or e5m2, mxint8 int8; group_size: 32 in the standard."""

    scales: ClassVar[Elements] = ELEMENTS["e8m0"]

    element: Literal["e2m1", "e2m3", "e3m2", "e4m3", "e5m2", "int8"]
    rule: Literal["floor", "ceil"] = "floor"
    group_size: Annotated[int, Field(ge=1)] = 32

    def params(self, weight: Tensor) -> GridParams:
        """Scales 2^E [out, groups] of weight [out, in]. Raises ValueError if the weight holds NaN or infinity."""
        absmax, largest = self.absmax(weight), self._elements.largest
        of_largest = _floor_log2(torch.tensor(largest, device=absmax.device))
        E = _floor_log2(absmax) - of_largest
        if self.rule == "ceil":
            E = E + (absmax > largest * _power_of_two(E)).int()
        scale = _power_of_two(torch.minimum(E, 127 - of_largest))
        return GridParams(scale.masked_fill_(absmax == 0, 1.0))


def _floor_log2(x: Tensor) -> Tensor:
    """floor(log2 x), exact for normal float32 x > 0; -127 for smaller ones."""
    return (x.view(torch.int32) >> 23) - 127


def _power_of_two(exponent: Tensor) -> Tensor:
    """2^E float32, E kept within what E8M0 and a normal float32 hold."""
    return ((exponent.clamp(-126, 127) + 127) << 23).view(torch.float32)
