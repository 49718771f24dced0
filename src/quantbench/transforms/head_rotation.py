"""Randomized Hadamard rotations of a head's channels, for any number of them.

    R = diag(signs) H / sqrt(d)      H = C (x) S,  d = m 2^k with m odd

S [2^k, 2^k] is Sylvester's Hadamard matrix of entries +-1; C [m, m] is sqrt(m) times the orthonormal cosine transform
(DCT-II), [1] where d is a power of two. H H^T = d I, so R is orthogonal.
"""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor


def randomized_hadamard(signs: Tensor) -> Tensor:
    """R float32 [d, d] for signs [d] of +-1."""
    width = len(signs)
    power = width & -width
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    while len(hadamard) < power:
        hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)])
    matrix = torch.kron(_cosines(width // power), hadamard) / math.sqrt(width)
    return (signs.to(matrix)[:, None] * matrix.to(signs.device)).float()


def random_signs(width: int, seed: str) -> Tensor:
    """int8 [width] of +-1; the same for a seed wherever it runs."""
    drawn = random.Random(seed)
    return torch.tensor([drawn.choice((-1, 1)) for _ in range(width)], dtype=torch.int8)


def _cosines(size: int) -> Tensor:
    rows, columns = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (columns + 0.5) * rows) * math.sqrt(2)
    matrix[0] = 1.0
    return matrix
