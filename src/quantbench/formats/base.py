"""Number formats: a grid of representable values, and where its scales live.

A format is a pure function of a weight matrix; it is passed to the rounding algorithm, which never branches on it.
Weights are [out, in]; the scales of one output row are shared by runs of `group_size` input columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class GridParams:
    """Scales and zero points of g groups of columns: scale [out, g] (float32 holding values of the stored dtype),
    zero [out, g] (float32 holding integers), or None where the format has no zero point.
    """

    scale: Tensor
    zero: Tensor | None = None

    def group(self, index: int) -> GridParams:
        """The parameters of one group, [out, 1] each: broadcastable to any slice of that group's columns."""
        zero = None if self.zero is None else self.zero[:, index : index + 1]
        return GridParams(self.scale[:, index : index + 1], zero)

    def columns(self, group_index: Tensor) -> GridParams:
        """One column of parameters per weight column, given the group each column belongs to [in]."""
        zero = None if self.zero is None else self.zero.index_select(1, group_index)
        return GridParams(self.scale.index_select(1, group_index), zero)


@runtime_checkable
class Format(Protocol):
    """A number format for weights. Implementations are components."""

    def columns_per_group(self, in_features: int) -> int:
        """How many input columns share a scale in a weight that is `in_features` wide (the last group may be short)."""
        ...

    def params(self, weight: Tensor) -> GridParams:
        """Fit scales and zero points to weight [out, in]; one column of parameters per group."""
        ...

    def encode(self, weight: Tensor, params: GridParams) -> Tensor:
        """The codes (uint8, same shape) of the nearest representable values; params broadcast to weight."""
        ...

    def decode(self, codes: Tensor, params: GridParams) -> Tensor:
        """The values (float32) of codes; params broadcast to codes."""
        ...

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """Bits a weight of this shape takes, divided by its number of elements; everything stored is counted."""
        ...

    def to_spec(self) -> dict[str, Any]:
        """Plain values from which the same format is built again: {"_target_": import path, field: value, ...}."""
        ...


@runtime_checkable
class ActivationFormat(Protocol):
    """A number format for the inputs of a layer, applied when the model runs. Implementations are components."""

    @property
    def needs(self) -> frozenset[str]:
        """Statistics of the inputs that a static scale is fitted to; empty for a dynamic one."""
        ...

    def static_params(self, minimum: Tensor, maximum: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scale and zero point (None if symmetric) for calibrated ranges per channel [in]; static formats only."""
        ...

    def fake_quantize(self, x: Tensor, scale: Tensor | None = None, zero: Tensor | None = None) -> Tensor:
        """The values x [..., features] put on the grid, in x's dtype; scale and zero are given for static formats."""
        ...

    def to_spec(self) -> dict[str, Any]:
        """Plain values from which the same format is built again."""
        ...


def group_count(in_features: int, columns_per_group: int) -> int:
    """Number of groups, the short last one included."""
    return -(-in_features // columns_per_group)


def default_group_index(in_features: int, columns_per_group: int) -> Tensor:
    """The group of each column when groups are runs of neighbouring columns, int64 [in]."""
    return torch.arange(in_features) // columns_per_group


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight on its grid, as it is stored: codes uint8 [out, in], params [out, g] each, and the group of each
    column [in] where that is not simply column // group_size (act-order with dynamic groups).

    extras: further named tensors a rounding method needs to rebuild the weight (outliers, low-rank factors).
    """

    codes: Tensor
    params: GridParams
    format: Format
    group_index: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)

    def dequantize(self) -> Tensor:
        """The weight this stands for, float32 [out, in]."""
        width = self.codes.shape[1]
        index = self.group_index
        if index is None:
            index = default_group_index(width, self.format.columns_per_group(width)).to(self.codes.device)
        return self.format.decode(self.codes, self.params.columns(index.long()))

    def bits_per_weight(self) -> float:
        """Effective bits, everything stored counted: codes, scales, zero points, group index (int32), extras."""
        out_features, in_features = self.codes.shape
        extra = 0 if self.group_index is None else 32 * in_features
        extra += sum(8 * t.element_size() * t.numel() for t in self.extras.values())
        return self.format.bits_per_weight((out_features, in_features)) + extra / self.codes.numel()
