"""Recovery: the share of full precision's score above chance that a quantized model keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from quantbench.metrics.clusters import cluster_totals
from quantbench.metrics.errors import LEVEL
from quantbench.metrics.statistics import Estimate

MIN_SIGNAL = 2.0
"""Standard errors by which full precision must lie above chance for a share of it to mean something."""


@dataclass(frozen=True)
class Recovery:
    """The share kept, 1 = all, and its interval; no interval where it has no bounds."""

    value: float
    lower: float | None
    upper: float | None


def recovery(
    quantized: Estimate, full: Estimate, chance: float, clusters: Sequence[str], level: float = LEVEL
) -> Recovery | None:
    """(quantized - chance) / (full - chance) over the same items, with Fieller's (1954) interval.

    The interval holds every share r for which quantized - chance - r (full - chance) is not significantly other than 0,
    errors clustered, so it knows how the two vary together. None unless full - chance exceeds MIN_SIGNAL of its errors.
    """
    kept, signal = quantized.value - chance, full.value - chance
    totals = np.stack([cluster_totals(estimate.influence, clusters) for estimate in (quantized, full)])
    n_clusters = totals.shape[1]
    if n_clusters < 2:
        return None
    covariance = n_clusters / (n_clusters - 1) * (totals @ totals.T) / full.n**2
    if not signal > MIN_SIGNAL * math.sqrt(covariance[1, 1]):
        return None
    # (kept - r signal)^2 <= t^2 Var(kept - r signal), a quadratic inequality a r^2 - 2 b r + c <= 0 in r
    t2 = float(stdtrit(n_clusters - 1, (1 + level) / 2)) ** 2
    a = signal**2 - t2 * covariance[1, 1]
    b = kept * signal - t2 * covariance[0, 1]
    c = kept**2 - t2 * covariance[0, 0]
    if a <= 0:
        return Recovery(kept / signal, None, None)
    half = math.sqrt(max(0.0, b**2 - a * c))
    return Recovery(kept / signal, float((b - half) / a), float((b + half) / a))
