"""Random orthogonal matrices from a seed, and the correction that takes a weight back from the basis they gave it.

Q = (A x B) P of size n = p q: a permutation P, then the Kronecker product of two random orthogonal matrices A [p, p]
and B [q, q], with p the largest divisor of n up to its square root (1 if n is prime: then B is the whole matrix). A
multiplication takes n (p + q) steps for each column instead of n^2.

Only the seed is stored. The random numbers come from numpy's legacy generator, whose sequence for a seed never
changes, and everything is computed in float64, so that a weight is the same float32 numbers again after a reload.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from quantbench.core.component import component
from quantbench.core.lazy import lazy_module
from quantbench.core.tensor_field import TensorField
from quantbench.formats.corrections import SameWidth, tensor_bits

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

Seed = Annotated[int, Field(ge=0, lt=2**32)]
ROWS, COLUMNS = 0, 1
"""The two sides of a weight; each has a matrix of its own, also where the weight is square."""


@dataclass(frozen=True)
class KroneckerOrthogonal:
    """Q = (A x B) P, float64; order int64 [n] is the permutation."""

    a: Tensor
    b: Tensor
    order: Tensor

    @classmethod
    def random(cls, n: int, seed: int, side: int, device: torch.device) -> KroneckerOrthogonal:
        """The matrix of size n that belongs to a seed and a side of the weight."""
        generator = np.random.RandomState([seed, n, side])
        p = max(d for d in range(1, math.isqrt(n) + 1) if n % d == 0)
        a, b = (_haar(size, generator).to(device) for size in (p, n // p))
        return cls(a, b, torch.from_numpy(generator.permutation(n)).to(device))

    def times(self, matrix: Tensor) -> Tensor:
        """Q M for M float64 [n, k]."""
        return _kronecker(self.a, self.b, matrix[self.order])

    def inverse_times(self, matrix: Tensor) -> Tensor:
        """Q^T M for M float64 [n, k]."""
        return _kronecker(self.a.t(), self.b.t(), matrix)[self.order.argsort()]


@dataclass(frozen=True)
class Basis:
    """The basis in which a weight W [out, in] is rounded: U W diag(s) V^T; s [in], or None for ones."""

    u: KroneckerOrthogonal
    v: KroneckerOrthogonal
    s: Tensor | None

    @classmethod
    def random(cls, shape: tuple[int, int], seed: int, s: Tensor | None, device: torch.device) -> Basis:
        """U and V of a seed."""
        u, v = (
            KroneckerOrthogonal.random(n, seed, side, device) for n, side in zip(shape, (ROWS, COLUMNS), strict=True)
        )
        return cls(u, v, None if s is None else s.to(device).double())

    def weight(self, W: Tensor) -> Tensor:
        """U W diag(s) V^T, in W's dtype."""
        scaled = W.double() if self.s is None else W.double() * self.s
        return self.u.times(self.v.times(scaled.t()).t()).to(W.dtype)

    def hessian(self, H: Tensor) -> Tensor:
        """V diag(s)^-1 H diag(s)^-1 V^T, in H's dtype: with it the changed weight has the proxy loss of the old one."""
        scaled = H.double() if self.s is None else H.double() / self.s.outer(self.s)
        return self.v.times(self.v.times(scaled).t()).to(H.dtype)

    def weight_back(self, W: Tensor) -> Tensor:
        """What `weight` was given: U^T W V diag(s)^-1, in W's dtype."""
        turned = self.v.inverse_times(self.u.inverse_times(W.double()).t()).t()
        return (turned if self.s is None else turned / self.s).to(W.dtype)


@component
class Incoherent(SameWidth):
    """The values of the codes are those of U W diag(s) V^T; U and V belong to the seed, s is float16 [in] or None."""

    seed: Seed
    s: TensorField | None = None

    def apply(self, weight: Tensor) -> Tensor:
        """The weight in its own basis."""
        shape = (weight.shape[0], weight.shape[1])
        return Basis.random(shape, self.seed, self.s, weight.device).weight_back(weight)

    def bits(self) -> int:
        """The seed (32 bits) and the scales."""
        return 32 + (0 if self.s is None else tensor_bits(self.s))


def _haar(size: int, generator: np.random.RandomState) -> Tensor:
    """A uniformly distributed orthogonal matrix float64 [size, size]."""
    q, r = np.linalg.qr(generator.standard_normal((size, size)))
    return torch.from_numpy(q * np.where(np.diag(r) < 0, -1.0, 1.0))


def _kronecker(a: Tensor, b: Tensor, matrix: Tensor) -> Tensor:
    """(A x B) M for M [p q, k]."""
    grid = a @ matrix.reshape(len(a), -1)
    return (b @ grid.reshape(len(a), len(b), -1)).reshape(len(matrix), -1)
