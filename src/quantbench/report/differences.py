"""Two scores of one text: differences of all their metrics, paired over clusters, for these two runs alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from quantbench.metrics import metrics
from quantbench.metrics.draw_arrays import crossed_errors
from quantbench.report.effects import paired_shares, put_shares
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
    y = scored.y[:, None]
    half = crossed_errors(y).half_widths()
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
    errors = crossed_errors(y[:, None])
    level = np.array([own.totals[name].scale_value - other.totals[name].scale_value for name in names])
    centre = put_shares(paired_shares(names, own, other), level.copy(), errors)
    half = errors.half_widths()
    found = {}
    for row, name in enumerate(names):
        value, reference = own.totals[name].value, other.totals[name].value
        stderr, low, high = float(errors.stderr[row]), float(centre[row] - half[row]), float(centre[row] + half[row])
        if not np.isfinite(stderr):
            found[name] = Difference(value - reference, None, None, None)
        elif metrics.is_log_scale(name):
            ends = [reference * float(np.expm1(end)) for end in (low, high)]
            found[name] = Difference(value - reference, value * stderr, ends[0], ends[1])
        else:
            found[name] = Difference(value - reference, stderr, low, high)
    return found
