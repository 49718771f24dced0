"""EasyQuant: the few largest weights are kept in 16 bits, and the scale of the others is optimised without data.

Paper      Tang, Sun, Wu, Liu, Zhu, Kang: "EasyQuant: An Efficient Data-free Quantization Algorithm for LLMs", EMNLP
           2023 (arXiv 2403.02775). It prints var(W) in the outlier rule; the standard deviation is meant.
Objective  min over s of f(s) = sum (s l(w/s) - w)^2, for each group of each row, l being the nearest level

Symbols    W [out, in]  the weight                 s [out, 1]  the scale of a group, s0 that of its range
           M [out, in]  which weights are outliers r [out, 1]  s / s0, what is optimised
           l [out, g]   levels of a group          q = s l     its values on the grid

Steps
 1. M = |W - mean(W)| > n std(W) over the whole weight. Outliers keep their values in float16.
 2. W without outliers, 0 in their places; s0 is fitted to it.
 3. Adam on r, from 1, with the gradient df/ds = 2 sum (q - w) l: where no level changes it is exact.
    f and its gradient are taken at the scale as it is stored. Remember the scale with the smallest f in each group.
 4. The codes for the scale remembered: f is nowhere larger than at the start.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format
from quantbench.formats.corrections import Outliers
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.rounding.base import Rounded
from quantbench.rounding.search import GridSearch, by_group

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # Adam's usual constants


@component
class EasyQuant(GridSearch):
    """EasyQuant rounding. It reads no data.

    sigma          n, in standard deviations; null: no outliers
    learning_rate  of Adam, relative to the scale of the range
    steps          of Adam; 0 optimises nothing
    """

    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 3.0
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    steps: Annotated[int, Field(ge=0)] = 100

    @staticmethod
    def unfit(format: Format) -> str | None:
        """Why the format has no scale of its own around zero for every row and group; None if it has."""
        if not isinstance(format, IntFormat) or not format.symmetric:
            return "EasyQuant optimises scales around zero: it needs an IntFormat with symmetric=true"
        if format.group_size == "tensor" or format.block_rows != 1 or format.double_quantization is not None:
            return "EasyQuant gives every row and group its own scale: no tensor scale, block_rows, double_quantization"
        return None

    def search(self, weight: Tensor, format: IntFormat) -> Rounded:
        """The steps of this file for weight float32 [out, in]."""
        M = torch.zeros_like(weight, dtype=torch.bool)
        if self.sigma is not None:
            M = (weight - weight.mean()).abs() > self.sigma * weight.std(correction=0)  # step 1
        rounded = by_group(weight.masked_fill(M, 0), format, self._optimised)  # steps 2 and 3
        if bool(M.any()):
            rounded = dataclasses.replace(rounded, corrections=(Outliers.of(weight, M),))
        return Rounded(rounded)

    def _optimised(self, W: Tensor, params: GridParams, format: IntFormat) -> GridParams:
        """Step 3 for one group: its parameters with the best scale."""
        s0 = best = params.scale
        least = torch.full_like(s0, torch.inf)
        r, first, second = torch.ones_like(s0), torch.zeros_like(s0), torch.zeros_like(s0)
        for step in range(1, self.steps + 2):
            tried = format.stored(GridParams(s0 * r))
            f, slope = squared_error(W, tried, format)
            better = f < least
            least, best = torch.where(better, f, least), torch.where(better, tried.scale, best)
            slope = slope / s0  # df/dr for weights in units of s0: the scale of the weights does not matter
            first = _BETA1 * first + (1 - _BETA1) * slope
            second = _BETA2 * second + (1 - _BETA2) * slope.square()
            size = (second / (1 - _BETA2**step)).sqrt() + _EPSILON
            r = (r - self.learning_rate * first / (1 - _BETA1**step) / size).clamp(min=self.learning_rate)
        return GridParams(best)


def squared_error(W: Tensor, params: GridParams, format: IntFormat) -> tuple[Tensor, Tensor]:
    """f(s) and df/ds [out, 1] of a group W [out, g]."""
    q = format.decode(format.encode(W, params), params)
    error = q - W
    return error.square().sum(1, keepdim=True), 2 * (error * q).sum(1, keepdim=True) / params.scale
