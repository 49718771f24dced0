"""Randomized Hadamard transforms of any size: orthogonal matrices that spread one large channel over all of them.

Paper      Ashkboos, Mohtashami, Croci, Li, Jaggi, Alistarh, Hoefler, Hensman: "QuaRot: Outlier-Free 4-Bit Inference in
           Rotated LLMs", NeurIPS 2024 (arXiv 2404.00456), section 3; sizes that are no power of two as stated here.
Matrix     Q = D (H_p x H_h x O_m)  [n, n],  Q Q^T = I,    n = p h m as `hadamard_matrices.factors` says
             D    random signs on the diagonal                    x    the Kronecker product
             H_p  Sylvester's, p a power of two; H_h another Hadamard matrix (12, 20, 28, ..); entries +-1 / sqrt(p h)
             O_m  a random orthogonal matrix [m, m], uniformly distributed; (1) for m = 1. Only where no Hadamard matrix
                  of the size is known here, odd sizes first of all, is m more than 1: `shortfall` says so
Apply      x Q for rows x [n], without Q:  H_p x H_h x O_m = F_1 x F_2 x .., F_i [f_i, f_i], f_i <= 64 for those of H_p
             1. x <- x D
             2. for each F_i: view x as [f_1, .., f_i, ..], contract its axis i with the rows of F_i
           n (f_1 + f_2 + ..) multiplications instead of n^2; Q^T is not needed: Q^T W = (W^T Q)^T.
Seed       Signs and O_m come from NumPy's legacy generator, whose stream is frozen, seeded by the sha256 of a text.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

from quantbench.core.lazy import lazy_module
from quantbench.transforms.hadamard_matrices import factors, hadamard_matrix

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

_LARGEST_FACTOR = 64


class Orthogonal:
    """The matrix Q [size, size] of a seed; the same in every process."""

    def __init__(self, size: int, seed: str) -> None:
        if size < 1:
            raise ValueError(f"an orthogonal matrix has at least one row, not {size}")
        self.size, self.seed = size, seed
        state = np.random.RandomState(np.frombuffer(hashlib.sha256(seed.encode()).digest(), dtype="<u4"))
        p, h, m = factors(size)
        self._signs = torch.from_numpy(state.randint(0, 2, size) * 2.0 - 1.0)[:, None]  # D
        self._factors = [*_sylvester_factors(p), *_other_factor(h), *_random_factor(m, state)]  # F_i, float64
        self._placed: dict[tuple[torch.device, torch.dtype], tuple[Tensor, list[Tensor]]] = {}

    def apply(self, x: Tensor, stride: int = 1) -> Tensor:
        """x Q for x [.., k size stride], on the axis `size` of its view [.., k, size, stride]; x is not modified.

        So the heads of x [.., heads d] are rotated each on its own by a matrix of size d, and among each other by one
        of size `heads` with stride d. Computed in float64 for float64, else in float32, and returned in x's dtype.
        """
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        signs, factors = self._on(x.device, dtype)
        y = x.to(dtype).reshape(-1, self.size, stride) * signs  # step 1
        rest = self.size * stride
        for F in factors:  # step 2
            rest //= len(F)
            y = y.reshape(-1, len(F)) @ F if rest == 1 else F.t() @ y.reshape(-1, len(F), rest)
        return y.reshape(x.shape).to(x.dtype)

    def matrix(self) -> Tensor:
        """Q, float64 [size, size]."""
        return self.apply(torch.eye(self.size, dtype=torch.float64))

    def _on(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
        key = device, dtype
        if key not in self._placed:
            self._placed[key] = self._signs.to(device, dtype), [F.to(device, dtype) for F in self._factors]
        return self._placed[key]


def shortfall(size: int) -> str | None:
    """What a record must say of the matrix of a size: None if it is a Hadamard matrix."""
    m = factors(size)[2]
    if m == 1:
        return None
    known = "no Hadamard matrix of that order is known here"
    return f"rotation of {size} channels: {known}, a random orthogonal factor [{m}, {m}]"


def _sylvester_factors(power: int) -> list[Tensor]:
    """Sylvester's matrices of at most _LARGEST_FACTOR rows whose Kronecker product is H_p."""
    sizes = []
    while power > 1:
        sizes.append(min(power, _LARGEST_FACTOR))
        power //= sizes[-1]
    return [_normalized(size) for size in sizes]


def _other_factor(order: int) -> list[Tensor]:
    """H_h, none for order 1."""
    return [] if order == 1 else [_normalized(order)]


def _normalized(order: int) -> Tensor:
    return torch.from_numpy(hadamard_matrix(order)).double() / math.sqrt(order)


def _random_factor(size: int, state: np.random.RandomState) -> list[Tensor]:
    """O_m: the orthogonal part of a matrix of normal values, its signs fixed by a positive diagonal of R."""
    if size == 1:
        return []
    Q, R = torch.linalg.qr(torch.from_numpy(state.standard_normal((size, size))))
    return [Q * R.diagonal().sign()]
