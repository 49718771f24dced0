"""Errors over calibration draws and test items at once.

Another reader takes another calibration draw *and* other test items. The two are crossed: every draw is scored on the
same items, and both vary. With theta_d the metric of draw d, each cluster c of items gets the pseudo-value

    y[d, c] = theta_d + (G / N) sum of the influences on theta_d of the items in c,

whose mean over the G clusters is theta_d again (N items in all). The table y [D, G] is a two-way layout without
repetition, of mean squares MS_d (rows), MS_c (columns) and MS_e (rest).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantbench.metrics.errors import Error, Source
from quantbench.metrics.statistics import Estimate, Values
from quantbench.metrics.totals import Totals, stacked

PseudoValues = NDArray[np.float64]


@dataclass(frozen=True)
class MeanSquares:
    """The mean squares of a two-way layout [D, G] without repetition."""

    draws: float
    clusters: float
    rest: float


def pseudo_values(draws: Sequence[Estimate], clusters: Sequence[str]) -> PseudoValues:
    """y [D, G] of the D estimates, which are over the same N items in the same order; G clusters.

    Raises ValueError for no draws, or draws over different numbers of items.
    """
    return stacked([Totals.of(draw, clusters) for draw in draws])


def mean_squares(y: PseudoValues) -> MeanSquares:
    """Of y [D, G]. Raises ValueError for fewer than two draws or two clusters."""
    n_draws, n_clusters = y.shape
    if n_draws < 2 or n_clusters < 2:
        raise ValueError(f"variance over draws and clusters takes two of each, not {n_draws} and {n_clusters}")
    of_draws, of_clusters = y.mean(axis=1), y.mean(axis=0)
    rest = y - of_draws[:, None] - of_clusters + y.mean()
    return MeanSquares(
        draws=n_clusters * _variance(of_draws),
        clusters=n_draws * _variance(of_clusters),
        rest=float((rest**2).sum()) / ((n_draws - 1) * (n_clusters - 1)),
    )


def crossed_error(y: PseudoValues) -> Error:
    """The error of the mean of y [D, G], for other draws and other items.

    Var = max(MS_d + MS_c - MS_e, MS_d, MS_c) / (D G): the unbiased moment estimate, floored at what either source alone
    shows. Its sources are MS_d with D - 1 degrees of freedom and what clusters add to it with G - 1: the rest, which is
    part of both mean squares, is left with the draws, which have fewer.
    """
    n_draws, n_clusters = y.shape
    squares = mean_squares(y)
    added = max(0.0, squares.clusters - min(squares.draws, squares.rest))
    return _error((squares.draws / y.size, n_draws - 1), (added / y.size, n_clusters - 1))


def gap_error(y_a: PseudoValues, y_b: PseudoValues) -> Error:
    """The error of mean(y_a) - mean(y_b): draws of two calibration sets, [D_A, G] and [D_B, G], on the same clusters.

    The draws of A and of B are independent texts, so pairing cancels what clusters have in common, but no draw: with
    z [G] the difference of the means over draws, Var = s^2(z) / G + sum over A, B of max(0, MS_d - MS_e) / (D G). The
    sources are the clusters, with G - 1 degrees of freedom, and the draws of both sides together, with Satterthwaite's.
    Raises ValueError if the clusters are not as many.
    """
    if y_a.shape[1] != y_b.shape[1]:
        raise ValueError(f"paired over clusters: {y_a.shape[1]} against {y_b.shape[1]}")
    n_clusters = y_a.shape[1]
    of_clusters = _variance(y_a.mean(axis=0) - y_b.mean(axis=0)) / n_clusters
    of_draws = [(_excess(y), len(y) - 1) for y in (y_a, y_b)]
    return _error((of_clusters, n_clusters - 1), _satterthwaite(*of_draws))


def _excess(y: PseudoValues) -> float:
    """What draws alone add to the variance of the mean of y [D, G]: max(0, MS_d - MS_e) / (D G)."""
    squares = mean_squares(y)
    return max(0.0, squares.draws - squares.rest) / y.size


def _satterthwaite(*parts: tuple[float, int]) -> tuple[float, float]:
    """The sum of independent variance estimates (variance, df), with degrees of freedom (sum v)^2 / sum(v^2 / df)."""
    total = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / df for variance, df in parts)
    return total, total**2 / spread if spread > 0 else float(min(df for _, df in parts))


def _error(*variances: tuple[float, float]) -> Error:
    return Error(tuple(Source(math.sqrt(variance), df) for variance, df in variances))


def _variance(values: Values) -> float:
    return float(np.var(values, ddof=1))
