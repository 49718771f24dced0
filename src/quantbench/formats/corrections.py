"""What is kept of a weight beside its codes: outliers, whole columns, low-rank factors.

A correction is a component whose fields are plain values and tensors in the dtype in which they are stored. It turns
the values of the codes into the weight they stand for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from quantbench.core.component import component
from quantbench.core.finite import all_finite
from quantbench.core.lazy import lazy_module
from quantbench.core.tensor_field import TensorField

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


KeptDtype = Literal["float16", "float32"]


@runtime_checkable
class Correction(Protocol):
    """A change of a dequantized weight. Implementations are components."""

    @property
    def columns_added(self) -> int:
        """By how many columns the corrected weight is wider."""
        ...

    def apply(self, weight: Tensor) -> Tensor:
        """The corrected weight float32 [out, in]; the argument may be written into."""
        ...

    def bits(self) -> int:
        """Bits everything it stores takes."""
        ...


class SameWidth:
    """What most corrections have in common: the weight keeps its width."""

    @property
    def columns_added(self) -> int:
        """None."""
        return 0


def tensor_bits(*tensors: Tensor) -> int:
    """Bits that tensors take in their dtypes."""
    return sum(8 * t.element_size() * t.numel() for t in tensors)


def as_kept(values: Tensor, dtype: KeptDtype = "float16") -> Tensor:
    """Values in the dtype in which they are kept. Raises ValueError if one overflows it."""
    kept = values.to(getattr(torch, dtype))
    if not all_finite(kept):
        raise ValueError(f"a weight of {float(values.abs().max()):.4g} cannot be kept as {dtype}")
    return kept


@component
class Outliers(SameWidth):
    """Single elements kept in their own precision, row by row (compressed sparse rows).

    counts int32 [out]  outliers of each row; columns int16 or int32 [n]; values [n] in float16 or float32
    """

    counts: TensorField
    columns: TensorField
    values: TensorField

    @classmethod
    def of(cls, weight: Tensor, mask: Tensor, dtype: KeptDtype = "float16") -> Outliers:
        """The elements of weight [out, in] where mask [out, in] is true. ValueError if one overflows `dtype`."""
        values = as_kept(weight[mask], dtype)
        index = torch.int16 if weight.shape[1] <= 2**15 else torch.int32
        return cls(
            counts=mask.sum(dim=1).to(torch.int32),
            columns=mask.nonzero()[:, 1].to(index),
            values=values,
        )

    def apply(self, weight: Tensor) -> Tensor:
        """The weight with the outliers in their places."""
        counts = self.counts.to(weight.device).long()
        rows = torch.arange(len(counts), device=weight.device).repeat_interleave(counts)
        weight[rows, self.columns.to(weight.device).long()] = self.values.to(weight)
        return weight

    def bits(self) -> int:
        """Value and column of each outlier, and a count per row."""
        return tensor_bits(self.counts, self.columns, self.values)


@component
class KeptColumns:
    """Whole input columns that were taken out before rounding: index int32 [k] (rising), values [out, k]."""

    index: TensorField
    values: TensorField

    @property
    def columns_added(self) -> int:
        """k, the number of columns that were taken out."""
        return len(self.index)

    def apply(self, weight: Tensor) -> Tensor:
        """The weight [out, in - k] with these columns put in: [out, in]."""
        rows, rest = weight.shape
        index = self.index.to(weight.device).long()
        whole = weight.new_empty(rows, rest + len(index))
        others = torch.ones(whole.shape[1], dtype=torch.bool, device=weight.device)
        others[index] = False
        whole[:, others] = weight
        whole[:, index] = self.values.to(weight)
        return whole

    def bits(self) -> int:
        """All values, and an index for each column."""
        return tensor_bits(self.index, self.values)


@component
class LowRank(SameWidth):
    """A product added to the weight: left [out, m], right [m, in]."""

    left: TensorField
    right: TensorField

    def apply(self, weight: Tensor) -> Tensor:
        """weight + left right."""
        return weight.addmm_(self.left.to(weight), self.right.to(weight))

    def bits(self) -> int:
        """Both factors."""
        return tensor_bits(self.left, self.right)
