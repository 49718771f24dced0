"""Integer weights as files of other programs hold them: levels, zero points and scales in equal groups of columns.

    value = (level - zero) * scale,  level and zero integers of b bits

Our last group of a row may be short; other programs want groups that divide the width. A scale may stand for fewer
columns than it was fitted to, so groups of s columns in a width w become groups of gcd(s, w): the values are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quantbench.formats.int import IntFormat
from quantbench.formats.quantized_weight import QuantizedWeight


class NotHeldError(Exception):
    """Why a layout cannot hold a weight or an operation exactly, and what would be exact: a phrase for the user."""


@dataclass(frozen=True)
class IntCodes:
    """levels uint8 [out, in], scales float32 [out, g], zeros uint8 [out, g]; symmetric: all zeros are 2^(bits - 1).

    group_size  columns of a group; it divides the width
    column_group  int64 [in], the group of each column where that is not column // group_size
    fitted  columns that the recipe's groups have: more than group_size where that did not divide the width
    """

    bits: int
    symmetric: bool
    levels: Tensor
    zeros: Tensor
    scales: Tensor
    group_size: int
    fitted: int
    column_group: Tensor | None = None

    @property
    def by_channel(self) -> bool:
        """Whether a row has one scale."""
        return self.scales.shape[1] == 1

    @property
    def signed(self) -> Tensor:
        """int8 [out, in]: level - 2^(bits - 1)."""
        return (self.levels.int() - (1 << (self.bits - 1))).to(torch.int8)

    @property
    def signed_zeros(self) -> Tensor:
        """int8 [out, g]: zero - 2^(bits - 1)."""
        return (self.zeros.int() - (1 << (self.bits - 1))).to(torch.int8)

    def in_groups(self, size: int) -> IntCodes:
        """The same values in groups of `size` columns, which must divide group_size."""
        assert self.group_size % size == 0, (self.group_size, size)
        times = self.group_size // size
        zeros, scales = (t.repeat_interleave(times, dim=1) for t in (self.zeros, self.scales))
        return replace(self, zeros=zeros, scales=scales, group_size=size)


def refuse_corrections(weight: QuantizedWeight) -> None:
    """Raise NotHeldError for a weight with anything beside its codes."""
    if weight.corrections:
        kinds = ", ".join(sorted({type(one).__name__ for one in weight.corrections}))
        raise NotHeldError(
            f"parts are kept beside the codes ({kinds}). Exact: --to dense, which holds their sum in full"
        )


def int_codes(weight: QuantizedWeight) -> IntCodes:
    """The codes of a weight in IntFormat. Raises NotHeldError if the weight is more or something else than that."""
    refuse_corrections(weight)
    kind = weight.format
    if not isinstance(kind, IntFormat) or weight.params.qmax is not None:
        raise NotHeldError(f"{type(kind).__name__} is no grid of integers with one number of bits. Exact: --to dense")
    if not kind.zero_rounding:
        raise NotHeldError(
            "zero points are real numbers, and the file has integers. Exact: --to dense, or a run with "
            "quantizer.weight.zero_rounding=true"
        )
    rows, width = weight.codes.shape
    scales = weight.params.scale.expand(rows, -1)
    middle = torch.full_like(scales, float(1 << (kind.bits - 1)))
    zeros = (middle if weight.params.zero is None else weight.params.zero.expand(rows, -1)).to(torch.uint8)
    fitted = min(kind.columns_per_group(width), width)
    if weight.group_index is not None:
        index = weight.group_index.long().cpu()
        return IntCodes(kind.bits, kind.symmetric, weight.codes, zeros, scales, fitted, fitted, index)
    size = math.gcd(fitted, width)
    starts = torch.arange(0, width, size) // fitted
    zeros, scales = (t.index_select(1, starts).contiguous() for t in (zeros, scales))
    return IntCodes(kind.bits, kind.symmetric, weight.codes, zeros, scales, size, fitted)


def common_group(codes: Sequence[IntCodes]) -> int | None:
    """The group size that all layers can be written in; None if each row of each layer has one scale."""
    return None if all(one.by_channel for one in codes) else math.gcd(*(one.group_size for one in codes))


def regrouped(weights: Mapping[str, QuantizedWeight], size: int | None) -> list[str]:
    """What to say where the recipe's groups did not divide a width."""
    fitted = max((int_codes(weight).fitted for weight in weights.values()), default=0)
    if size is None or size >= fitted:
        return []
    return [
        f"Groups of {fitted} columns are written as groups of {size} with repeated scales, since {fitted} does not "
        "divide every width: the same values, and more bits of scales."
    ]


def exact_in(values: Tensor, dtype: torch.dtype) -> bool:
    """Whether values float32 are the same in another dtype."""
    return torch.equal(values.to(dtype).float(), values)
