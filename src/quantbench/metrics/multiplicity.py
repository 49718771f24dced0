"""Many tests at once: p values that say what one among them means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import false_discovery_control


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p values: below alpha, the chance of any false finding in the family is at most alpha.

    The k-th smallest of m is multiplied by m - k + 1, and never falls below a smaller one. In the given order.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's (1995) adjusted p values: of the findings below alpha, at most that share is false."""
    return [float(value) for value in false_discovery_control(p_values)] if len(p_values) else []
