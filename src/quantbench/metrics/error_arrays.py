"""Errors of many values at once: what quantbench.metrics.errors says of one, for arrays of them.

Thousands of comparisons have quantiles and p values of a sum of two t distributions each. A quantile depends on the
degrees of freedom and on the ratio of the two errors alone; where many errors share their degrees of freedom, it is
interpolated in that ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.chebyshev import Chebyshev
from numpy.typing import NDArray
from scipy.special import gammaln, stdtr, stdtrit

from quantbench.metrics.errors import LEVEL, POWER

Array = NDArray[np.float64]

_NODES = np.linspace(-12.0, 12.0, 193)
"""Quadrature nodes v, with u = sinh(v): the trapezoid rule converges exponentially for what decays like a t density."""

_CHUNK = 2048
"""Errors that are integrated at once, which bounds the memory to a few MiB."""

_MANY, _DEGREE = 100, 48
"""From this number of errors of equal degrees of freedom on, quantiles are interpolated; by this degree."""


@dataclass(frozen=True, eq=False)
class Errors:
    """n errors of two independent sources each; a source with the standard error 0 is none, NaN is not known.

    stderrs  float64 [n, 2], in the units of the values
    dfs      float64 [n, 2]: their degrees of freedom
    """

    stderrs: Array
    dfs: Array

    @property
    def stderr(self) -> Array:
        """The standard errors [n]: of the sums of the variances."""
        found: Array = np.sqrt((self.stderrs**2).sum(axis=1))
        return found

    def p_values(self, values: Array) -> Array:
        """Two-sided p values [n] of the hypotheses that the true values are 0; 1 for 0 without an error, then 0."""
        return 2 * self.probability(-np.abs(values))

    def equivalence_p(self, values: Array, margins: Array) -> Array:
        """p values [n] of two one-sided tests of |true value| >= margin (Schuirmann 1987); NaN where a margin is."""
        return self.probability(np.abs(values) - margins)

    def half_widths(self, level: float = LEVEL) -> Array:
        """Half the widths [n] of the two-sided intervals."""
        return self.quantile((1 + level) / 2)

    def detectable(self, level: float = LEVEL, power: float = POWER) -> Array:
        """The smallest true values [n] that a test at 1 - level finds with this power."""
        return self.quantile((1 + level) / 2) + self.quantile(power)

    def probability(self, distances: Array) -> Array:
        """P(s_1 t_1 + s_2 t_2 <= distance) [n]; a step at 0 where there is no error."""
        small, large, small_df, large_df = self._sorted()
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(large > 0, stdtr(large_df, distances / large), 0.5 * (1 + np.sign(distances)))
        known = np.isfinite(small + large + distances)
        found[~known] = np.nan
        both = np.flatnonzero(known & (small > 0))
        for rows in np.split(both, range(_CHUNK, len(both), _CHUNK)):
            shifts, weights = _nodes(small[rows], small_df[rows])
            at = (distances[rows, None] - shifts) / large[rows, None]
            found[rows] = (weights * stdtr(large_df[rows, None], at)).sum(axis=1)
        return found

    def quantile(self, probability: float) -> Array:
        """The inverse [n] of `probability`, for one probability of more than 1/2."""
        bounds = self.stderrs * stdtrit(self.dfs, probability)
        found: Array = bounds.sum(axis=1)
        both = np.flatnonzero((bounds > 0).all(axis=1) & np.isfinite(found))
        if not len(both):
            return found
        pairs, group = np.unique(self.dfs[both], axis=0, return_inverse=True)
        sizes = np.bincount(group.ravel(), minlength=len(pairs))
        for index in np.flatnonzero(sizes >= _MANY):
            rows = both[group.ravel() == index]
            angles = np.arctan2(self.stderrs[rows, 1], self.stderrs[rows, 0])
            at = np.arcsin(np.clip(4 / np.pi * angles - 1, -1, 1))
            found[rows] = self.stderr[rows] * _curve(pairs[index], probability)(at)
        rest = both[(sizes < _MANY)[group.ravel()]]
        for rows in np.split(rest, range(_CHUNK, len(rest), _CHUNK)):
            found[rows] = Errors(self.stderrs[rows], self.dfs[rows])._solved(probability)
        return found

    def _sorted(self) -> tuple[Array, Array, Array, Array]:
        """Smaller and larger standard errors [n], and the degrees of freedom of each."""
        first = self.stderrs[:, 0] <= self.stderrs[:, 1]
        order = np.where(first[:, None], [0, 1], [1, 0])
        errors, dfs = (np.take_along_axis(one, order, axis=1) for one in (self.stderrs, self.dfs))
        return errors[:, 0], errors[:, 1], dfs[:, 0], dfs[:, 1]

    def _solved(self, probability: float) -> Array:
        """Quantiles by Newton's method: above 0 the distribution function is concave, so it climbs from the left."""
        small, large, small_df, large_df = self._sorted()
        if not len(small):
            return small
        shifts, weights = _nodes(small, small_df)
        lowest = (self.stderrs * stdtrit(self.dfs, probability)).max(axis=1)
        scale = np.exp(gammaln((large_df + 1) / 2) - gammaln(large_df / 2)) / np.sqrt(np.pi * large_df)
        found: Array = np.hypot(*(self.stderrs * stdtrit(self.dfs, probability)).T)
        for _ in range(60):
            at = (found[:, None] - shifts) / large[:, None]
            excess = (weights * stdtr(large_df[:, None], at)).sum(axis=1) - probability
            shape = np.exp(-(large_df[:, None] + 1) / 2 * np.log1p(at**2 / large_df[:, None]))
            density = (weights * shape).sum(axis=1) * scale / large
            step = excess / density
            found = np.maximum(found - step, lowest)
            if (np.abs(step) <= 1e-9 * found).all():
                break
        return found


def _nodes(stderrs: Array, dfs: Array) -> tuple[Array, Array]:
    """Nodes and weights [n, K] for means of functions of s t; the weights of each add up to 1."""
    u = np.sinh(_NODES)
    df = dfs[:, None]
    weights = np.exp(-(df + 1) / 2 * np.log1p(u * (u / df))) * np.cosh(_NODES)
    return stderrs[:, None] * u, weights / weights.sum(axis=1, keepdims=True)


def _curve(dfs: Array, probability: float) -> Chebyshev:
    """The quantile of cos(a) t_1 + sin(a) t_2 as a function of x, -pi/2 to pi/2, with a = pi/4 (1 + sin(x)).

    Where one source is small its tails alone decide, so that the curve is steepest at the ends: x spreads them out.
    """

    def exact(x: Array) -> Array:
        angles = np.pi / 4 * (1 + np.sin(x))
        sides = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return Errors(sides, np.broadcast_to(dfs, sides.shape))._solved(probability)

    return Chebyshev.interpolate(exact, _DEGREE, domain=[-np.pi / 2, np.pi / 2])
