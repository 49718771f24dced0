"""How scales and zero points are stored: as they are, as levels, or themselves quantized (double quantization).

The name is QLoRA's (arXiv 2305.14314), the form that of SpQR (arXiv 2306.03078): in each group of columns, a run of
output rows shares one grid.

    x [out, g]       scales or zero points; r = ceil(out / R) runs of R rows, of which the last may be short
    lowest [r, g]    min x of the run, as stored
    step [r, g]      (max x - lowest) / (2^b - 1), as stored
    code [out, g]    round((x - lowest) / step), 0 .. 2^b - 1
    x' [out, g]      lowest + code * step

This is an asymmetric grid with a real zero point, -lowest / step. The lowest value is kept in its place: scales that
are nearly alike have a tiny step, by which it would have to be divided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.lazy import lazy_module
from quantbench.formats.packing import pack_bits, unpack_bits

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

SmallBits = Annotated[int, Field(ge=2, le=8)]


@component
class DoubleQuantization:
    """Scales and zero points in few bits.

    scale_bits  bits of a scale
    zero_bits   bits of a zero point; null: zero points are stored as they are
    group_size  output rows that share a lowest value and a step, both stored in the format's scale_dtype
    """

    scale_bits: SmallBits
    zero_bits: SmallBits | None
    group_size: Annotated[int, Field(ge=2)]


@dataclass(frozen=True)
class ScaleStorage:
    """How values [out, g] of one kind, scales or zero points, are stored.

    dtype  of the values themselves (bits None), or of lowest values and steps
    bits   of a code; rows 0: the codes are the values, integers from 0
    rows   R, the output rows that share a lowest value and a step
    """

    dtype: torch.dtype
    bits: int | None = None
    rows: int = 0

    def fit(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """The values as they are stored; and the runs float32 [2 r, g], lowest values over steps, where there are."""
        if self.bits is None:
            return values.to(self.dtype).float(), None
        if not self.rows:
            return values, None
        missing = -len(values) % self.rows
        whole = torch.cat([values, values[-1:].expand(missing, -1)])  # the last row again leaves its range as it is
        low, high = whole.reshape(-1, self.rows, whole.shape[1]).aminmax(dim=1)
        low = low.to(self.dtype).float()
        step = ((high - low).clamp_(min=0) / (2**self.bits - 1)).to(self.dtype).float()
        runs = torch.cat([low, step])
        return self._values(self._codes(values, runs), runs), runs

    def pack(self, name: str, values: Tensor, runs: Tensor | None) -> dict[str, Tensor]:
        """What is stored of values that `fit` gave, under `name`; runs under `name`_runs."""
        if self.bits is None:
            return {name: values.to(self.dtype)}
        if runs is None:
            return {name: pack_bits(values.to(torch.uint8), self.bits)}
        return {name: pack_bits(self._codes(values, runs), self.bits), f"{name}_runs": runs.to(self.dtype)}

    def unpack(self, name: str, stored: dict[str, Tensor], rows: int, groups: int) -> tuple[Tensor, Tensor | None]:
        """Exactly what `fit` gave."""
        if self.bits is None:
            return stored[name].float(), None
        codes = unpack_bits(stored[name], self.bits, (rows, groups))
        if not self.rows:
            return codes.float(), None
        runs = stored[f"{name}_runs"].float()
        return self._values(codes, runs), runs

    def size(self, rows: int, groups: int) -> int:
        """Bits that everything stored takes."""
        whole = torch.finfo(self.dtype).bits
        runs = -(-rows // self.rows) if self.rows else 0
        return groups * (rows * (whole if self.bits is None else self.bits) + 2 * whole * runs)

    def _codes(self, values: Tensor, runs: Tensor) -> Tensor:
        assert self.bits is not None
        low, step = self._by_row(runs, len(values))
        step = step.clamp(min=torch.finfo(step.dtype).tiny)  # where it is 0, all codes stand for the same value
        return ((values - low) / step).round_().clamp_(0, 2**self.bits - 1).to(torch.uint8)

    def _values(self, codes: Tensor, runs: Tensor) -> Tensor:
        low, step = self._by_row(runs, len(codes))
        return codes.float().mul_(step).add_(low)

    def _by_row(self, runs: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        low, step = (half.repeat_interleave(self.rows, dim=0)[:rows] for half in runs.chunk(2))
        return low, step
