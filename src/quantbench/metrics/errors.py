"""A standard error with its degrees of freedom, and what follows from the two: intervals, p values, equivalence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit

LEVEL = 0.95
"""Coverage of the confidence intervals."""

POWER = 0.80
"""Probability at which a difference counts as detectable."""


@dataclass(frozen=True)
class Error:
    """The standard error of a value, in its unit, and the degrees of freedom of Student's t that belong to it."""

    stderr: float
    df: float

    def interval(self, value: float, level: float = LEVEL) -> tuple[float, float]:
        """The two-sided t interval."""
        half = float(stdtrit(self.df, (1 + level) / 2)) * self.stderr
        return value - half, value + half

    def p_value(self, value: float) -> float:
        """Two-sided p value of the hypothesis that the true value is 0; without an error, 1 for 0 and else 0."""
        return 2 * self._tail(-abs(value))

    def equivalence_p(self, value: float, margin: float) -> float:
        """The p value of two one-sided tests of |true value| >= margin (Schuirmann 1987): the larger of the two.

        Below alpha exactly where the interval of level 1 - 2 alpha lies within (-margin, margin). The margin is in the
        unit of the value; ValueError unless it is positive.
        """
        if not margin > 0:
            raise ValueError(f"an equivalence margin is a positive number in the metric's unit, not {margin}")
        return self._tail(abs(value) - margin)

    def detectable(self, level: float = LEVEL, power: float = POWER) -> float:
        """The smallest true value found at 1 - level with this power: (t((1 + level) / 2) + t(power)) se."""
        return float(stdtrit(self.df, (1 + level) / 2) + stdtrit(self.df, power)) * self.stderr

    def _tail(self, distance: float) -> float:
        """P(T <= distance / se)."""
        if self.stderr == 0:
            return 0.0 if distance < 0 else 0.5 if distance == 0 else 1.0
        return float(stdtr(self.df, distance / self.stderr)) if math.isfinite(distance) else float(distance > 0)
