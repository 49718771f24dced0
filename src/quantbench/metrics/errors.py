"""The error of a value from one or several sources, and what follows: intervals, p values, equivalence.

A source is a variance estimate s^2 with its degrees of freedom. With one source, (estimate - truth) / s has Student's t
distribution. With several, estimate - truth is taken as a sum of independent s_k t_k (Behrens and Fisher). A single t
with Satterthwaite's degrees of freedom has too light tails where a source has two or three of them: three calibration
draws that happen to agree then give very small p values, and corrections for many comparisons, which live in the tails,
let through several times as many false findings as they say (docs/statistics.md has the simulation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, stdtr, stdtrit

LEVEL = 0.95
"""Coverage of the confidence intervals."""

POWER = 0.80
"""Probability at which a difference counts as detectable."""

_NODES = np.linspace(-12.0, 12.0, 193)
"""Quadrature nodes v, with u = sinh(v): the trapezoid rule converges exponentially for what decays like a t density."""


@dataclass(frozen=True)
class Source:
    """A standard error, in the unit of the value, and its degrees of freedom."""

    stderr: float
    df: float


@dataclass(frozen=True)
class Error:
    """The error of a value, of independent sources."""

    sources: tuple[Source, ...]

    @staticmethod
    def of(stderr: float, df: float) -> Error:
        """One source."""
        return Error((Source(stderr, df),))

    @property
    def stderr(self) -> float:
        """The standard error: of the sum of the variances."""
        return math.sqrt(sum(source.stderr**2 for source in self.sources))

    def interval(self, value: float, level: float = LEVEL) -> tuple[float, float]:
        """The two-sided interval."""
        half = self.quantile((1 + level) / 2)
        return value - half, value + half

    def p_value(self, value: float) -> float:
        """Two-sided p value of the hypothesis that the true value is 0."""
        return 2 * self.probability(-abs(value))

    def equivalence_p(self, value: float, margin: float) -> float:
        """The p value of two one-sided tests of |true value| >= margin (Schuirmann 1987): the larger of the two.

        Below alpha exactly where the interval of level 1 - 2 alpha lies within (-margin, margin). The margin is in the
        unit of the value; ValueError unless it is positive.
        """
        if not margin > 0:
            raise ValueError(f"an equivalence margin is a positive number in the metric's unit, not {margin}")
        return self.probability(abs(value) - margin)

    def detectable(self, level: float = LEVEL, power: float = POWER) -> float:
        """The smallest true value that a test at 1 - level finds with this power: q((1 + level) / 2) + q(power)."""
        return self.quantile((1 + level) / 2) + self.quantile(power)

    def probability(self, distance: float) -> float:
        """P(sum of s_k t_k <= distance); a step at 0 where there is no error."""
        sources = sorted((source for source in self.sources if source.stderr > 0), key=lambda source: source.stderr)
        if not sources:
            return 0.0 if distance < 0 else 0.5 if distance == 0 else 1.0
        *smaller, largest = sources  # the widest t is integrated in closed form: what is left is smooth
        shifts, weights = np.zeros(1), np.ones(1)
        for source in smaller:
            u, mass = _nodes(source.df)
            shifts = np.add.outer(shifts, source.stderr * u).ravel()
            weights = np.multiply.outer(weights, mass).ravel()
        return float(weights @ stdtr(largest.df, (distance - shifts) / largest.stderr))

    def quantile(self, probability: float) -> float:
        """The inverse of `probability`, for probabilities of 1/2 and more."""
        from scipy.optimize import brentq  # a quarter of a second, where most ask for no quantile

        bounds = [source.stderr * float(stdtrit(source.df, probability)) for source in self.sources]
        if sum(bound > 0 for bound in bounds) < 2:
            return sum(bounds)
        low, high = 0.0, sum(bounds)
        while self.probability(high) < probability:
            low, high = high, 2 * high
        return float(brentq(lambda x: self.probability(x) - probability, low, high, xtol=1e-9 * high, rtol=1e-9))


def _nodes(df: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes u and weights for the mean of a function of t with df degrees of freedom; the weights add up to 1."""
    u = np.sinh(_NODES)
    log_density = gammaln((df + 1) / 2) - gammaln(df / 2) - (df + 1) / 2 * np.log1p(u * (u / df))
    weights = np.exp(log_density) * np.cosh(_NODES)
    return u, weights / weights.sum()
