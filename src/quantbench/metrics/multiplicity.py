"""Many tests at once: p values that say what one among them means."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p values: below alpha, the chance of any false finding in the family is at most alpha.

    The k-th smallest of m is multiplied by m - k + 1, and never falls below a smaller one. In the given order.
    """
    return _by_size(p_values, lambda p: np.maximum.accumulate(p * np.arange(len(p), 0, -1)))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's (1995) adjusted p values: of the findings below alpha, at most that share is false.

    The k-th smallest of m is multiplied by m / k, and never rises above a larger one. In the given order.
    """
    return _by_size(p_values, lambda p: np.minimum.accumulate((p * (len(p) / np.arange(1, len(p) + 1)))[::-1])[::-1])


def _by_size(p_values: Sequence[float], adjust: Callable[[Values], Values]) -> list[float]:
    """`adjust` is given the values from the smallest to the largest; none ends above 1."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, adjust(p[order]))
    return [float(value) for value in adjusted]
