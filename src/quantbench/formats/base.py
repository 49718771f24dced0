"""Number formats: a grid of representable values, and where its scales live.

A format is a pure function of a weight matrix; it is passed to the rounding algorithm, which never branches on it.
Weights are [out, in]; the scales of one output row are shared by runs of `group_size` input columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from quantbench.core.lazy import lazy_module
from quantbench.core.mixing import Mixing
from quantbench.formats.grid_params import GridParams

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@runtime_checkable
class Format(Protocol):
    """A number format for weights. Implementations are components."""

    @property
    def independent_groups(self) -> bool:
        """Whether the parameters of a group depend on that group's columns alone.

        Where not (a scale over the whole weight), groups cannot be fitted one after another.
        """
        ...

    @property
    def rows_per_scale(self) -> int | None:
        """How many output rows share the scale of a group; None: all."""
        ...

    @property
    def has_zero_points(self) -> bool:
        """Whether `params` fits zero points."""
        ...

    def without_double_quantization(self) -> Format:
        """The format with scales and zero points stored as they are; itself where they are."""
        ...

    def columns_per_group(self, in_features: int) -> int:
        """How many input columns share a scale in a weight that is `in_features` wide (the last group may be short)."""
        ...

    def params(self, weight: Tensor) -> GridParams:
        """Fit scales and zero points to weight [out, in]; one column of parameters per group.

        Raises ValueError if the weight holds NaN or infinity, or if a scale cannot be stored.
        """
        ...

    def encode(self, weight: Tensor, params: GridParams) -> Tensor:
        """The codes (uint8, same shape) of the nearest representable values; params broadcast to weight."""
        ...

    def decode(self, codes: Tensor, params: GridParams) -> Tensor:
        """The values (float32) of codes; params broadcast to codes."""
        ...

    def pack(self, codes: Tensor, params: GridParams) -> dict[str, Tensor]:
        """Everything that is stored of a weight, in as few bytes as it takes."""
        ...

    def unpack(self, stored: dict[str, Tensor], shape: tuple[int, int]) -> tuple[Tensor, GridParams]:
        """The codes of `shape` and the parameters that `pack` was given, exactly."""
        ...

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """Bits a weight of this shape takes, divided by its number of elements; everything stored is counted."""
        ...


class FormatDefaults:
    """What holds for most formats: symmetric, with a scale for each row and group, fitted to that group alone."""

    @property
    def independent_groups(self) -> bool:
        """Yes: no scale is shared by all groups."""
        return True

    @property
    def rows_per_scale(self) -> int | None:
        """One."""
        return 1

    @property
    def has_zero_points(self) -> bool:
        """No: the values lie symmetrically about zero."""
        return False

    def without_double_quantization(self) -> Self:
        """Itself: scales are stored as they are."""
        return self


@runtime_checkable
class ActivationFormat(Protocol):
    """A number format for the inputs of a layer, applied when the model runs. Implementations are components.

    Every member is required: a format that does not say what it mixes is refused, not taken for one that mixes nothing.
    """

    @property
    def mixing(self) -> Mixing:
        """Whether the grid of one token depends on others."""
        ...

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


def group_count(in_features: int, columns_per_group: int) -> int:
    """Number of groups, the short last one included."""
    return -(-in_features // columns_per_group)


def default_group_index(in_features: int, columns_per_group: int) -> Tensor:
    """The group of each column when groups are runs of neighbouring columns, int64 [in]."""
    return torch.arange(in_features) // columns_per_group
