"""A sample of the rows of X, taken while they stream by, for parts that need outputs and not only second moments."""

from __future__ import annotations

import torch
from torch import Tensor

SAMPLED_ROWS = 2048
"""The most rows that are kept."""

_MULTIPLIER = 2654435761  # odd, near 2^32 / golden ratio: i * multiplier mod 2^32 spreads any run of i evenly


class RowSample:
    """The rows whose keys are smallest; the key of row i is i * multiplier mod 2^32.

    No random numbers: the sample depends on nothing but the number of rows and their order. It is spread evenly over
    the sequences and over the positions in them. Its order is that of the keys.
    """

    def __init__(self, size: int = SAMPLED_ROWS) -> None:
        self._size = size
        self._keys: Tensor | None = None
        self.rows: Tensor | None = None

    def add(self, x: Tensor, first: int) -> None:
        """Add the rows x [n, in], which are the rows first, first + 1, .. of X."""
        keys = torch.arange(first, first + len(x), device=x.device) * _MULTIPLIER % 2**32
        if self._keys is not None and self.rows is not None:
            if len(self._keys) == self._size:
                worth = keys < self._keys[-1]
                keys, x = keys[worth], x[worth]
            keys, x = torch.cat([self._keys, keys]), torch.cat([self.rows, x])
        chosen = keys.argsort()[: self._size]
        self._keys, self.rows = keys[chosen], x[chosen]
