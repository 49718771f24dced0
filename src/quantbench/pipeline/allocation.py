"""Bits for each layer, chosen by how much the output of each layer suffers.

Objective  min over b of sum_i p_i e_i(b_i),  subject to sum_i n_i B_i(b_i) <= target * sum_i n_i
Symbols    e_i(b)  tr(dW H dW^T), dW the error of rounding layer i to nearest with b bits, H = 2/n X^T X of its inputs X
                   in the full-precision model; objective `relative`: divided by tr(W H W^T), the power of its output
           p_i     1; for an expert the share of the calibration tokens routed to it
           n_i     weights of layer i           B_i(b)  effective bits of its format with b bits, scales counted

Steps
 1. Run the calibration sequences through the full-precision blocks; collect H of every group of weights.
 2. Round every layer to nearest with each of the candidate numbers of bits: e_i(b). An expert that saw too few tokens
    is measured on the H of all experts beside it together, and counts as much as they do on average.
 3. Choose b (`quantbench.pipeline.knapsack`). The same bits everywhere are among the choices, so the objective is never
    larger than that of the best uniform allocation within the target.

The sum takes layers for independent: it knows nothing of how errors of one layer act through the others, and a rounding
better than nearest is assumed to gain equally everywhere. Steps 1 and 2 are in `quantbench.pipeline.sensitivity`, step
3 in `quantbench.pipeline.allocate`.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from quantbench.core.component import Part, component
from quantbench.formats.base import Format

KEY = "quantizer.policy.allocation"


@component
class BitAllocation(Part):
    """Chooses the `bits` of each layer that has the recipe's own format; layers with a rule keep the format it gives.

    target_bits  largest average of effective bits over these layers, weighted by size; what a rounding keeps beside the
                 codes (outliers, low rank) is not counted
    candidates   numbers of bits to choose from
    objective    `relative`: each layer's error in units of its output's power; `absolute`: as it is
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hessian"})

    target_bits: Annotated[float, Field(gt=0)]
    candidates: tuple[Annotated[int, Field(ge=1)], ...]
    objective: Literal["relative", "absolute"] = "relative"

    @model_validator(mode="after")
    def _ordered(self) -> BitAllocation:
        if len(self.candidates) < 2 or list(self.candidates) != sorted(set(self.candidates)):
            raise ValueError(f"candidates={list(self.candidates)} must be two or more different numbers, rising")
        if self.target_bits < self.candidates[0]:
            raise ValueError(f"target_bits={self.target_bits} is below the smallest candidate, {self.candidates[0]}")
        return self

    def refusal(self, recipe: Any) -> str | None:
        """It needs a format with an option `bits` that takes every candidate, and no columns beside it."""
        if recipe.weight is None:
            return f"{KEY} needs a weight format to choose the bits of"
        if recipe.policy.outlier_columns:
            return f"{KEY} does not count the columns that policy.outlier_columns keeps: set one of them to null or 0"
        name = type(recipe.weight).__name__
        options = {f.name for f in dataclasses.fields(recipe.weight)} if dataclasses.is_dataclass(recipe.weight) else ()
        if "bits" not in options or not isinstance(recipe.weight.bits, int):
            return f"{KEY} chooses the option `bits`, which the weight format {name} does not have: use format int"
        for bits in self.candidates:
            try:
                self.format(recipe.weight, bits)
            except ValueError:
                return f"{KEY}.candidates: the weight format {name} cannot have {bits} bits"
        return None

    def format(self, format: Format, bits: int) -> Format:
        """The format with other bits."""
        assert dataclasses.is_dataclass(format)
        changed: Format = dataclasses.replace(format, bits=bits)
        return changed
