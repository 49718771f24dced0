"""Two scores of one text: differences of all their metrics, paired over clusters, for these two runs alone."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from quantbench.metrics import metrics
from quantbench.metrics.error_arrays import Array
from quantbench.metrics.errors import LEVEL
from quantbench.report.effects import EXACT_DF, paired_shares
from quantbench.report.scored import Scored


class Difference(NamedTuple):
    """value - reference, in the metric's unit, and what is known of its error.

    Of metrics whose logarithm is tested, these are those of reference x (ratio - 1), the reference taken as given.
    """

    difference: float
    stderr: float | None
    low: float | None
    high: float | None


def intervals(scored: Scored) -> dict[str, tuple[float, float]]:
    """95 % intervals of a score's metrics, in their units; of those that have errors."""
    half = _t_quantile(scored.score.n_clusters) * _stderrs(scored.y)
    found = {}
    for (name, totals), width in zip(scored.totals.items(), half, strict=True):
        if np.isfinite(width):
            ends = totals.scale_value - width, totals.scale_value + width
            low, high = np.exp(ends) if totals.log_scale else ends
            found[name] = (float(low), float(high))
    return found | scored.intervals


def differences(own: Scored, other: Scored) -> dict[str, Difference]:
    """Metric -> difference own - other, of those that both have. Both are over the same items in the same clusters."""
    names = [name for name in own.rows if name in other.rows]
    y = own.y[[own.rows[name] for name in names]] - other.y[[other.rows[name] for name in names]]
    stderrs = _stderrs(y)
    half = _t_quantile(own.score.n_clusters) * stderrs
    shares = paired_shares(names, own, other)
    found = {}
    for row, name in enumerate(names):
        value, reference = own.totals[name].value, other.totals[name].value
        stderr, width = float(stderrs[row]), float(half[row])
        centre = own.totals[name].scale_value - other.totals[name].scale_value
        if row in shares:
            centre, stderr = shares[row].centre, shares[row].stderr
            width = float(stdtrit(EXACT_DF, (1 + LEVEL) / 2)) * stderr
        low, high = centre - width, centre + width
        if not math.isfinite(stderr):
            found[name] = Difference(value - reference, None, None, None)
        elif metrics.is_log_scale(name):
            ends = [reference * math.expm1(end) for end in (low, high)]
            found[name] = Difference(value - reference, value * stderr, ends[0], ends[1])
        else:
            found[name] = Difference(value - reference, stderr, low, high)
    return found


def _stderrs(y: Array) -> Array:
    """Standard errors [M] over clusters of pseudo-values [M, G] (CR1); NaN for one cluster."""
    if y.shape[1] < 2:
        return np.full(len(y), np.nan)
    found: Array = y.std(axis=1, ddof=1) / math.sqrt(y.shape[1])
    return found


@cache
def _t_quantile(n_clusters: int) -> float:
    """Half the width of a 95 % interval, in standard errors."""
    return float(stdtrit(max(n_clusters - 1, 1), (1 + LEVEL) / 2))
