"""Quantiles over the positions of all items, such as the KL divergence that one token in a thousand exceeds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from quantbench.metrics.statistics import Estimate, Values

COVERAGE = 0.95
"""Coverage of the interval for which Hall and Sheather's bandwidth is the best."""


def quantile(values: Values, item: NDArray[np.int64], n: int, alpha: float) -> Estimate:
    """The alpha quantile q of the values [T] at all positions, with the influence of each of the n items.

    item  int64 [T]: the number of the item that each position lies in

    q is the smallest value that at least the share alpha of all do not exceed. By Bahadur's representation its error is
    the mean over positions of (alpha - 1[x <= q]) s with s the sparsity at alpha, so that
    e_i = (n / T) sum over the positions of i of (F(q) - 1[x <= q]) s, F(q) the share that does not exceed q: alpha but
    for ties. Raises ValueError for no values.
    """
    if len(values) == 0:
        raise ValueError("a quantile needs at least one value")
    ordered = np.sort(values)
    value = _at(ordered, alpha)
    below = (values <= value).astype(np.float64)
    scores = (below.mean() - below) * sparsity(ordered, alpha)
    influence: Values = n / len(values) * np.bincount(item, weights=scores, minlength=n).astype(np.float64)
    return Estimate(value, influence)


def maximum(values: Values, n: int) -> Estimate:
    """The largest value, whose error items do not show: its influences [n] are NaN."""
    return Estimate(float(np.max(values)), np.full(n, np.nan))


def sparsity(ordered: Values, alpha: float) -> float:
    """The derivative of the quantile function at alpha, from ascending values [T], as Koenker (2005, 3.4.1) takes it.

    A difference quotient over alpha ± h, h the bandwidth of Hall and Sheather (1988); it ends at the smallest and the
    largest value.
    """
    normal = float(ndtri(alpha))
    density = math.exp(-(normal**2) / 2) / math.sqrt(2 * math.pi)
    root = math.cbrt(1.5 * density**2 / (2 * normal**2 + 1))
    bandwidth = math.pow(len(ordered), -1 / 3) * math.pow(float(ndtri((1 + COVERAGE) / 2)), 2 / 3) * root
    low, high = max(0.0, alpha - bandwidth), min(1.0, alpha + bandwidth)
    return (_at(ordered, high) - _at(ordered, low)) / (high - low)


def _at(ordered: Values, alpha: float) -> float:
    """The smallest of ascending values that at least the share alpha does not exceed."""
    # 0.9 * 10 is 9.000000000000002 in some roundings: the tenth of ten values would be taken for the ninth.
    rank = math.ceil(round(alpha * len(ordered), 9))
    return float(ordered[max(rank, 1) - 1])
