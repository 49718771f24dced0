"""How much more data would find a difference that was not decided.

An error over calibration draws and test items has two sources. More draws make the first smaller, its variance in
inverse proportion to their number, and leave the second; more clusters of test items do the opposite. So there are
differences that no number of draws finds, on the texts at hand, and others that no text finds, with the draws at hand;
more of both find any.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from quantbench.metrics.errors import Error, Source

MOST = 10_000
"""More draws or clusters than these are not asked for: it is said that they do not do."""


@dataclass(frozen=True)
class Observed:
    """What a comparison's error is made of.

    draws, clusters      its sources, as quantbench.metrics.draws gives them
    n_draws, n_clusters  how many there were, of either side of a transfer gap; at least 2 of each
    """

    draws: Source
    clusters: Source
    n_draws: int
    n_clusters: int

    def draws_needed(self, difference: float) -> int | None:
        """The least number of draws, on the same clusters, that finds a true difference of this size with power 0.8.

        At least as many as there were. None if MOST do not do. Raises ValueError for a difference of 0.
        """
        return _least(
            lambda n: Error((_scaled(self.draws, self.n_draws, n), self.clusters)), self.n_draws, abs(difference)
        )

    def clusters_needed(self, difference: float) -> int | None:
        """The same for clusters of test items, with the same draws."""
        return _least(
            lambda n: Error((self.draws, _scaled(self.clusters, self.n_clusters, n))), self.n_clusters, abs(difference)
        )

    def times_needed(self, difference: float) -> int | None:
        """The least number of times as many draws and as many clusters, both, that finds it; None if MOST times."""

        def error(times: int) -> Error:
            draws = _scaled(self.draws, self.n_draws, times * self.n_draws)
            return Error((draws, _scaled(self.clusters, self.n_clusters, times * self.n_clusters)))

        return _least(error, 1, abs(difference))


def _scaled(source: Source, n: int, wanted: int) -> Source:
    """The source if it were of `wanted` draws or clusters and not of n: more degrees of freedom, too."""
    return Source(source.stderr * math.sqrt(n / wanted), source.df * (wanted - 1) / (n - 1))


def _least(error: Callable[[int], Error], n: int, difference: float) -> int | None:
    """The least number from n to MOST whose error detects the difference, by bisection: more data never detect less."""
    if not difference > 0:
        raise ValueError(f"what is to be found is a difference of more than 0, not {difference}")

    def found(wanted: int) -> bool:
        return error(wanted).detectable() <= difference

    if found(n):
        return n
    if not found(MOST):
        return None
    low, high = n, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high
