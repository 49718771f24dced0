"""Number formats: a grid of representable values, and where its scales live.

A format is a pure function of a weight matrix; it is passed to the rounding algorithm, which never branches on it.
Weights are [out, in]; the scales of one output row are shared by runs of `group_size` input columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from quantbench.core.lazy import lazy_module
from quantbench.formats.corrections import Correction
from quantbench.formats.packing import pack_bits, unpack_bits
from quantbench.formats.second_level import SecondLevel, Stored

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@dataclass(frozen=True)
class GridParams:
    """What fixes the grids of g groups of columns; every tensor float32 [out, g], or [1, g] where rows share it.

    scale   holds values as they are stored (already rounded to the stored dtype)
    zero    zero points, None where the format has none
    steps   highest level 2^b - 1 of each group, None where all groups have the format's own number of bits
    scale_runs, zero_runs  [2 r, g] the second level of scales and of zero points (`SecondLevel`), None without one
    shared  [1, g] or [out, g]: a second factor of the scales that all groups share (NVFP4), None where there is none
    """

    scale: Tensor
    zero: Tensor | None = None
    steps: Tensor | None = None
    scale_runs: Tensor | None = None
    zero_runs: Tensor | None = None
    shared: Tensor | None = None

    def group(self, index: int) -> GridParams:
        """The parameters of one group, [out, 1] each: broadcastable to any slice of that group's columns."""
        return self._each(lambda t: t[:, index : index + 1])

    def columns(self, group_index: Tensor) -> GridParams:
        """One column of parameters per weight column, given the group each column belongs to [in]."""
        return self._each(lambda t: t.index_select(1, group_index))

    def split(self) -> list[GridParams]:
        """One contiguous [out, 1] for each group: a column's operations then read memory in order."""
        return [self.group(k)._each(lambda t: t.contiguous()) for k in range(self.scale.shape[1])]

    @staticmethod
    def join(groups: Sequence[GridParams]) -> GridParams:
        """The groups' parameters side by side."""
        given = {f.name: [getattr(p, f.name) for p in groups] for f in fields(GridParams)}
        return GridParams(**{name: torch.cat(ts, dim=1) for name, ts in given.items() if ts[0] is not None})

    def _each(self, change: Callable[[Tensor], Tensor]) -> GridParams:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return GridParams(**{name: change(t) for name, t in given.items() if t is not None})


@runtime_checkable
class Format(Protocol):
    """A number format for weights. Implementations are components."""

    @property
    def independent_groups(self) -> bool:
        """Whether the parameters of a group depend on that group's columns alone.

        Where not (a second-level scale over the whole weight), groups cannot be fitted one after another.
        """
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


class PackedGrid:
    """How most formats store a weight: codes and zero points of `code_bits` bits, scales in `scale_dtype`.

    A format that inherits from it has the attribute `scale_dtype` and either `bits` or a `code_bits` of its own.
    zero_rounding  whether zero points are levels; if not, they are real numbers, stored in `scale_dtype`
    second_level   puts scales and zero points on small grids of their own, which `stored` does
    """

    scale_dtype: str
    zero_rounding: bool = True
    second_level: SecondLevel | None = None

    @property
    def code_bits(self) -> int:
        """Bits of a code."""
        return int(self.bits)  # type: ignore[attr-defined]

    @property
    def independent_groups(self) -> bool:
        """See Format."""
        return True

    @property
    def _scales(self) -> Stored:
        dtype, second = getattr(torch, self.scale_dtype), self.second_level
        return Stored(dtype) if second is None else Stored(dtype, second.scale_bits, second.group_size)

    @property
    def _zeros(self) -> Stored:
        dtype, second = getattr(torch, self.scale_dtype), self.second_level
        if second is not None and second.zero_bits is not None:
            return Stored(dtype, second.zero_bits, second.group_size)
        return Stored(dtype, self.code_bits if self.zero_rounding else None)

    def stored(self, params: GridParams) -> GridParams:
        """Parameters as `unpack` will give them: what a rounding changes in them passes through here before use."""
        scale, scale_runs = self._scales.fit(params.scale)
        zero, zero_runs = (None, None) if params.zero is None else self._zeros.fit(params.zero)
        return replace(params, scale=scale, zero=zero, scale_runs=scale_runs, zero_runs=zero_runs)

    def params_bits(self, rows: int, groups: int, has_zero: bool) -> int:
        """Bits that the scales and zero points of `rows` output rows and `groups` groups of columns take."""
        return self._scales.size(rows, groups) + (self._zeros.size(rows, groups) if has_zero else 0)

    def pack(self, codes: Tensor, params: GridParams) -> dict[str, Tensor]:
        """See Format."""
        stored = {"codes": pack_bits(codes, self.code_bits)}
        stored |= self._scales.pack("scale", params.scale, params.scale_runs)
        if params.zero is not None:
            stored |= self._zeros.pack("zero", params.zero, params.zero_runs)
        return stored

    def unpack(self, stored: dict[str, Tensor], shape: tuple[int, int]) -> tuple[Tensor, GridParams]:
        """See Format."""
        groups = group_count(shape[1], self.columns_per_group(shape[1]))  # type: ignore[attr-defined]
        scale, scale_runs = self._scales.unpack("scale", stored, shape[0], groups)
        zero, zero_runs = None, None
        if "zero" in stored:
            zero, zero_runs = self._zeros.unpack("zero", stored, *scale.shape)
        params = GridParams(scale, zero, scale_runs=scale_runs, zero_runs=zero_runs)
        return unpack_bits(stored["codes"], self.code_bits, shape), params


def first_level(format: Format) -> Format:
    """The format with scales and zero points stored as they are."""
    if getattr(format, "second_level", None) is None:
        return format
    return replace(format, second_level=None)  # type: ignore[type-var]


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


def group_count(in_features: int, columns_per_group: int) -> int:
    """Number of groups, the short last one included."""
    return -(-in_features // columns_per_group)


def default_group_index(in_features: int, columns_per_group: int) -> Tensor:
    """The group of each column when groups are runs of neighbouring columns, int64 [in]."""
    return torch.arange(in_features) // columns_per_group


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
        width = self.codes.shape[1]
        index = self.group_index
        if index is None:
            index = default_group_index(width, self.format.columns_per_group(width)).to(self.codes.device)
        return self.format.decode(self.codes, self.params.columns(index.long()))

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
