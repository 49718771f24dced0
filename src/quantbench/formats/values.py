"""The values of small number formats, and the nearest one to each element of a tensor.

    name   values                                                    code                              largest
    e2m1   0, .5, 1, 1.5, 2, 3, 4, 6, with both signs                bit pattern, sign in bit 3        6
    e2m3   0 to .875 by 1/8, and (1 + m / 8) 2^e, e = 0, 1, 2         bit pattern, sign in bit 5        7.5
    e3m2   0 to .1875 by 1/16, and (1 + m / 4) 2^e, e = -2 .. 4       bit pattern, sign in bit 5        28
    e4m3   float8_e4m3fn: no infinity                                bit pattern                       448
    e5m2   float8_e5m2: the codes of infinity are not used           bit pattern                       57344
    int8   k / 64, -127 <= k <= 127                                  k in two's complement             1.984375
    nf4    16 quantiles of the normal distribution                   rank, 0 the smallest              1
    e8m0   powers of two 2^k, -126 <= k <= 127 (for scales)          k + 127                           2^127

Floats and int8 round half to even: of two values equally near, the one whose code is even. nf4 takes the smaller one,
as its authors' code does. What lies beyond the largest value becomes the largest (saturation). NaN is not a value.

e2m1, e2m3, e3m2, e4m3, e5m2, int8, e8m0: OCP Microscaling Formats (MX) specification v1.0;
nf4: QLoRA (arXiv 2305.14314).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from quantbench.core.lazy import lazy_module
from quantbench.formats.grid_params import GridParams

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


class Elements(Protocol):
    """Values with codes of `code_bits` bits, symmetric in their largest magnitude."""

    @property
    def code_bits(self) -> int:
        """Bits of a code."""
        ...

    @property
    def largest(self) -> float:
        """The largest value."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        """The codes uint8 of the values nearest to x float32."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """The values float32 of codes."""
        ...


@dataclass(frozen=True)
class Table:
    """Any values, listed by code; of two equally near ones the one with the even code, or the lower one."""

    values: tuple[float, ...]
    even: bool

    @property
    def code_bits(self) -> int:
        """Bits of a code."""
        return (len(self.values) - 1).bit_length()

    @property
    def largest(self) -> float:
        """The largest value."""
        return max(self.values)

    @cached_property
    def _ordered(self) -> tuple[Tensor, list[float]]:
        """Codes in rising order of their values; between each and the next, the largest float32 that belongs to it."""
        by_value = {float(np.float32(value)): code for code, value in reversed(list(enumerate(self.values)))}
        values = sorted(by_value)
        codes = [by_value[value] for value in values]
        bounds = []
        for i in range(len(values) - 1):
            middle = (values[i] + values[i + 1]) / 2  # exact: values are float32, this is float64
            bound = np.float32(middle)
            goes_up = self.even and codes[i] % 2 == 1
            if bound > middle or (goes_up and bound == middle):
                bound = np.nextafter(bound, np.float32(-np.inf))
            bounds.append(float(bound))
        return torch.tensor(codes, dtype=torch.uint8), bounds

    @cached_property
    def _values(self) -> Tensor:
        return torch.tensor(self.values)

    def encode(self, x: Tensor) -> Tensor:
        """The codes uint8 of the values nearest to x float32."""
        codes, bounds = self._ordered
        if len(bounds) > _MANY:
            ends = torch.tensor(bounds, device=x.device)
            return _at(codes.to(x.device), torch.bucketize(x.contiguous(), ends, out_int32=True))
        rank = torch.zeros(x.shape, dtype=torch.uint8, device=x.device)
        for bound in bounds:  # with a dozen of bounds twice as fast as torch.bucketize
            rank += x > bound
        return _at(codes.to(x.device), rank)

    def decode(self, codes: Tensor) -> Tensor:
        """The values float32 of codes."""
        return _at(self._values.to(codes.device), codes)


@dataclass(frozen=True)
class Float8:
    """A float of eight bits that torch knows; the rounding is torch's own."""

    name: Literal["float8_e4m3fn", "float8_e5m2"]
    code_bits: int = 8

    @property
    def dtype(self) -> torch.dtype:
        """Torch's dtype of that name."""
        dtype: torch.dtype = getattr(torch, self.name)
        return dtype

    @property
    def largest(self) -> float:
        """The largest finite value."""
        return torch.finfo(self.dtype).max

    def encode(self, x: Tensor) -> Tensor:
        """The codes uint8 of the values nearest to x float32."""
        return x.clamp(-self.largest, self.largest).to(self.dtype).view(torch.uint8)

    def decode(self, codes: Tensor) -> Tensor:
        """The values float32 of codes."""
        return codes.view(self.dtype).float()


@dataclass(frozen=True)
class FixedPoint8:
    """Multiples of 1/64. -128/64 is not used, so that the values are symmetric."""

    code_bits: int = 8
    largest: float = 127 / 64

    def encode(self, x: Tensor) -> Tensor:
        """The codes uint8 of the values nearest to x float32."""
        return (x * 64).round_().clamp_(-127, 127).to(torch.int8).view(torch.uint8)

    def decode(self, codes: Tensor) -> Tensor:
        """The values float32 of codes."""
        return codes.view(torch.int8).float().div_(64)


@dataclass(frozen=True)
class PowersOfTwo:
    """Scales 2^k; their code is the exponent field of float32. Code 0, a subnormal 2^-127 there, is not used."""

    code_bits: int = 8
    largest: float = 2.0**127

    def encode(self, x: Tensor) -> Tensor:
        """The codes of x, which must be such powers; of any other x > 0 that of the next smaller one."""
        return (x.view(torch.int32) >> 23).to(torch.uint8)

    def decode(self, codes: Tensor) -> Tensor:
        """The values float32 of codes."""
        return (codes.int() << 23).view(torch.float32)


def _at(table: Tensor, index: Tensor) -> Tensor:
    """table[index]; several times as fast."""
    return table.index_select(0, index.reshape(-1).int()).reshape(index.shape)


def _small_float(exponent_bits: int, mantissa_bits: int) -> Table:
    """All values of a float without infinities: sign, exponent, mantissa, and subnormal numbers."""
    steps, bias = 2**mantissa_bits, 2 ** (exponent_bits - 1) - 1
    subnormal = [m / steps * 2.0 ** (1 - bias) for m in range(steps)]
    normal = [(1 + m / steps) * 2.0 ** (e - bias) for e in range(1, 2**exponent_bits) for m in range(steps)]
    positive = (*subnormal, *normal)
    return Table((*positive, *(-value for value in positive)), even=True)


_MANY = 20
"""Bounds above which torch.bucketize is quicker than comparing with each."""

_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip

ELEMENTS: dict[str, Elements] = {
    "e2m1": _small_float(2, 1),
    "e2m3": _small_float(2, 3),
    "e3m2": _small_float(3, 2),
    "e4m3": Float8("float8_e4m3fn"),
    "e5m2": Float8("float8_e5m2"),
    "int8": FixedPoint8(),
    "nf4": Table(_NF4, even=False),
    "e8m0": PowersOfTwo(),
}
"""The values by name."""


class ElementCodes:
    """A format whose codes are those of `element`, times a scale. Has the attribute `element`."""

    element: str

    @property
    def _elements(self) -> Elements:
        return ELEMENTS[self.element]

    @property
    def code_bits(self) -> int:
        """Bits of a code."""
        return self._elements.code_bits

    def encode(self, weight: Tensor, params: GridParams) -> Tensor:
        """The nearest codes, uint8 of weight's shape."""
        return self._elements.encode(weight / params.scale)

    def decode(self, codes: Tensor, params: GridParams) -> Tensor:
        """The float32 values of codes."""
        return self._elements.decode(codes).mul_(params.scale)
