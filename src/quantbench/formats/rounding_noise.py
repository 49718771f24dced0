"""The noise of a dtype's last digit: what two correct computations of one model may differ by.

Another order of summation (other kernels, batches, numbers of threads) gives a number whose last digit is another one.
A metric's distance between full precision and full precision with this noise is the floor under every distance: below
it, two quantized models do not differ in anything but rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.lazy import lazy_module
from quantbench.core.mixing import Mixing

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

_FACTORS = (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB, 0x2545F4914F6CDD1D)
"""Odd numbers of 62 bits, to mix (the splitmix64 family of constants, Steele et al. 2014, shortened)."""


@component
class RoundingNoise:
    """Inputs x [..., features] of which each number is moved to the next one of its dtype, up or down by a coin's toss.

    seed  which tosses; they depend on it, on the token's numbers and on the feature, so that a token is moved the same
          way whatever is read beside it
    Zeros, infinities and NaN stay what they are.
    """

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @property
    def mixing(self) -> Mixing:
        """None: a token's noise is its own."""
        return Mixing.NONE

    @property
    def needs(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def static_params(self, minimum: Tensor, maximum: Tensor) -> tuple[Tensor, Tensor | None]:  # noqa: ARG002
        """There are none."""
        raise ValueError("noise has no static parameters")

    def fake_quantize(self, x: Tensor, scale: Tensor | None = None, zero: Tensor | None = None) -> Tensor:
        """x [..., features] with its noise, in its dtype; scale and zero must not be given (ValueError)."""
        if scale is not None or zero is not None:
            raise ValueError("noise has no static parameters: pass none")
        digits = x.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])
        moved = (digits + self._steps(digits.long()).to(digits.dtype)).view(x.dtype)
        return torch.where(x.isfinite() & moved.isfinite() & (x != 0), moved, x)

    def _steps(self, digits: Tensor) -> Tensor:
        """+1 or -1 for each number: a hash of seed, token (the sum of its digits) and feature; integers wrap around."""
        feature, token, first, second = _FACTORS
        columns = torch.arange(digits.shape[-1], device=digits.device) + (self.seed << 32)
        mixed = digits.sum(dim=-1, keepdim=True) * token + columns * feature
        for factor, shift in ((first, 30), (second, 27)):
            mixed = (mixed ^ (mixed >> shift)) * factor
        return ((mixed >> 40) & 1) * 2 - 1
