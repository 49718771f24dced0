"""Paired differences between two runs that are measured on the same items.

Pairing cancels what is common to both runs, such as how hard an item is: the error of a difference is that of the
differences of the influences, added up in each cluster (quantbench.metrics.clusters).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantbench.metrics.clusters import error_of_totals
from quantbench.metrics.errors import LEVEL
from quantbench.metrics.totals import Totals


@dataclass(frozen=True)
class Comparison:
    """A paired comparison over n items, and its confidence interval; neither error nor interval for one cluster."""

    difference: float
    stderr: float | None
    lower: float | None
    upper: float | None
    n: int


def align(ids: Sequence[str], others: Sequence[str]) -> NDArray[np.intp]:
    """The order that brings `others` to `ids`: others[order[i]] == ids[i].

    Raises ValueError, naming some items, if the two are not the same set of unique ids.
    """
    position = {item: index for index, item in enumerate(others)}
    different = sorted(set(ids) ^ position.keys())
    if different or len(ids) != len(others) or len(position) != len(others):
        raise ValueError(
            f"paired items must be the same: {len(ids)} against {len(others)}, of which {len(different)} occur on one "
            f"side only {different[:3]}"
        )
    return np.array([position[item] for item in ids], dtype=np.intp)


def compare(candidate: Totals, baseline: Totals, level: float = LEVEL) -> Comparison:
    """The difference candidate - baseline over the same items in the same clusters; t interval with G - 1 df.

    In the unit of the value. Raises ValueError if the numbers of items or clusters differ.
    """
    ours, theirs = (candidate.n, candidate.n_clusters), (baseline.n, baseline.n_clusters)
    if ours != theirs:
        raise ValueError(f"paired scores need the same items and clusters: {ours} against {theirs}")
    difference = candidate.value - baseline.value
    error = error_of_totals(candidate.value_totals - baseline.value_totals, candidate.n)
    if error is None:
        return Comparison(difference, None, None, None, candidate.n)
    return Comparison(difference, error.stderr, *error.interval(difference, level), candidate.n)
