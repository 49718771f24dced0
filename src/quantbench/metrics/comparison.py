"""Paired differences between two runs that are measured on the same items.

Pairing cancels what is common to both runs, such as how hard an item is: the standard error of a difference is
sd(a_i - b_i) / sqrt(n), where a_i and b_i are the influences of item i (quantbench.metrics.statistics).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from quantbench.metrics.statistics import Estimate

LEVEL = 0.95
"""Coverage of the confidence intervals."""


@dataclass(frozen=True)
class Comparison:
    """A paired comparison over n items, and its confidence interval; no error and no interval for n = 1."""

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


def compare(candidate: Estimate, baseline: Estimate, level: float = LEVEL) -> Comparison:
    """The difference candidate - baseline over the same items in the same order; two-sided t interval with n - 1 df.

    Raises ValueError if the numbers of items differ.
    """
    if candidate.n != baseline.n:
        raise ValueError(f"paired estimates need the same items: {candidate.n} against {baseline.n}")
    paired = Estimate(candidate.value - baseline.value, candidate.influence - baseline.influence)
    if paired.stderr is None:
        return Comparison(paired.value, None, None, None, paired.n)
    half = float(stdtrit(paired.n - 1, (1 + level) / 2)) * paired.stderr  # quantile of Student's t
    return Comparison(paired.value, paired.stderr, paired.value - half, paired.value + half, paired.n)
