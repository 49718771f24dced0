"""How a weight is cut into blocks that share a scale, and how the scales are stored: once for each block.

A weight [out, in] is cut into blocks of `rows` output rows and `columns` input columns. In `GridParams` every row has
its own entry, [out, g]: rows of a block repeat the same. What is stored, and counted, is one entry a block [r, g].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from quantbench.core.errors import ConfigError
from quantbench.core.finite import all_finite
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import group_count
from quantbench.formats.grid_params import GridParams
from quantbench.formats.packed import PackedGrid
from quantbench.formats.packing import pack_bits, unpack_bits
from quantbench.formats.values import Elements

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

GroupSize = Annotated[int, Field(ge=1)] | Literal["channel", "tensor"]
"""Input columns per scale; one scale per output row; one scale in all."""

BlockRows = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Blocks:
    """Blocks of rows x columns elements; None: the whole height or width. The last in each direction may be short."""

    rows: int | None
    columns: int | None

    @classmethod
    def of(cls, group_size: int | Literal["channel", "tensor"], block_rows: int = 1) -> Blocks:
        """Blocks of `block_rows` rows and `group_size` columns; "tensor" is one block."""
        if group_size == "tensor":
            return cls(None, None)
        return cls(block_rows, None if group_size == "channel" else group_size)

    def cut(self, weight: Tensor) -> Tensor:
        """The elements of each block [r, g, rows * columns]; short blocks are filled up with zeros.

        Zeros do not change an absolute maximum, nor a range that contains 0, and every grid holds 0 exactly.
        """
        height, width = weight.shape
        rows, columns = min(self.rows or height, height), min(self.columns or width, width)
        missing = (0, -width % columns, 0, -height % rows)
        whole = torch.nn.functional.pad(weight, missing) if any(missing) else weight
        parts = whole.reshape(len(whole) // rows, rows, -1, columns)  # [r, rows, g, columns]
        return parts.transpose(1, 2).flatten(2)

    def spread(self, params: GridParams, height: int) -> GridParams:
        """One entry a block [r, g] -> one a row [height, g]; a single block keeps its [1, 1]."""
        rows = self.rows
        if rows is None or rows == 1:
            return params
        return params.each(lambda t: t.repeat_interleave(rows, dim=0)[:height])

    def once(self, params: GridParams) -> GridParams:
        """The inverse of `spread`. Raises ValueError if rows of a block do not agree."""
        rows = self.rows
        if rows is None or rows == 1:
            return params
        once = params.each(lambda t: t[::rows])
        again = self.spread(once, len(params.scale))
        for name in ("scale", "zero"):
            own, common = getattr(params, name), getattr(again, name)
            if own is not None and not torch.equal(own, common):
                raise ValueError(f"each row has a {name} of its own, but {rows} rows share one: block_rows must be 1")
        return once

    def count(self, shape: tuple[int, int]) -> int:
        """Blocks of a weight [out, in]."""
        return math.prod(self.counts(shape))

    def counts(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Blocks of a weight [out, in] above and beside each other."""
        height, width = shape
        return group_count(height, self.rows or height), group_count(width, self.columns or width)


def check_blocks(group_size: int | str, block_rows: int) -> None:
    """Raise ConfigError if one scale in all is said to be several."""
    if group_size == "tensor" and block_rows != 1:
        raise ConfigError(f"group_size='tensor' is one block: block_rows={block_rows} must be 1")


class BlockGrid(PackedGrid):
    """A PackedGrid with one scale for each of `blocks`. Has the attributes `group_size` and `block_rows`."""

    group_size: int | Literal["channel", "tensor"]
    block_rows: int = 1

    @property
    def blocks(self) -> Blocks:
        """How weights are cut."""
        return Blocks.of(self.group_size, self.block_rows)

    def columns_per_group(self, in_features: int) -> int:
        """Columns that share a scale in one row; the whole width for "channel" and "tensor"."""
        return self.group_size if isinstance(self.group_size, int) else in_features

    @property
    def rows_per_scale(self) -> int | None:
        """`block_rows`, or all for "tensor"."""
        return self.blocks.rows

    def absmax(self, weight: Tensor) -> Tensor:
        """The largest magnitude of each block [r, g]. Raises ValueError if the weight holds NaN or infinity."""
        absmax = self.blocks.cut(weight.float().abs()).amax(dim=2)
        if not all_finite(absmax):
            raise ValueError(f"the weight {list(weight.shape)} holds NaN or infinity and cannot be quantized")
        return absmax

    def pack(self, codes: Tensor, params: GridParams) -> dict[str, Tensor]:
        """What PackedGrid stores, with the scales of a block once."""
        return super().pack(codes, self.blocks.once(params))

    def unpack(self, stored: dict[str, Tensor], shape: tuple[int, int]) -> tuple[Tensor, GridParams]:
        """Codes and parameters, with the scales of a block repeated in each of its rows."""
        codes, params = super().unpack(stored, shape)
        return codes, self.blocks.spread(params, shape[0])


class ByteScales(BlockGrid):
    """Groups of neighbouring columns whose scales are bytes: the codes of `scales`."""

    scales: ClassVar[Elements]
    scale_dtype = "uint8"

    def pack(self, codes: Tensor, params: GridParams) -> dict[str, Tensor]:
        """The codes packed to bits, the scales as bytes, and the global scale where there is one."""
        stored = {"codes": pack_bits(codes, self.code_bits), "scale": self.scales.encode(params.scale)}
        if params.global_scale is not None:
            stored["global_scale"] = params.global_scale[0, 0].clone().reshape(1)
        return stored

    def unpack(self, stored: dict[str, Tensor], shape: tuple[int, int]) -> tuple[Tensor, GridParams]:
        """Codes and parameters exactly as `pack` was given them."""
        scale, found = self.scales.decode(stored["scale"]), stored.get("global_scale")
        params = GridParams(scale, global_scale=None if found is None else found.expand(1, scale.shape[1]))
        return unpack_bits(stored["codes"], self.code_bits, shape), params

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """Bits of a code, and a byte for each group."""
        return self.code_bits + 8 * self.blocks.count(shape) / (shape[0] * shape[1])
