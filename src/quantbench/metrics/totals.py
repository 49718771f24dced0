"""A metric of one score by clusters of its items: what errors, pairs and draws are computed from, without the items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantbench.metrics.clusters import cluster_totals, error_of_totals
from quantbench.metrics.errors import LEVEL, Error
from quantbench.metrics.statistics import Estimate, Values


@dataclass(frozen=True, eq=False)
class Totals:
    """A metric by the clusters its N items lie in.

    value      the metric
    totals     float64 [G]: the sums of the items' influences in each cluster, on the test scale, in the order of the
               clusters' names; NaN for a metric without a usable influence, such as a maximum
    n          number of items N
    log_scale  whether tests are on log(value) (nats per token for perplexity), where differences are more nearly normal
    """

    value: float
    totals: Values
    n: int
    log_scale: bool = False

    @staticmethod
    def of(estimate: Estimate, clusters: Sequence[str], log_scale: bool = False) -> Totals:
        """Of an estimate whose items lie in `clusters` [n]. Raises ValueError if there is not one cluster per item.

        The influence on log(value) is that on the value, divided by it (delta method).
        """
        influence = estimate.influence / estimate.value if log_scale else estimate.influence
        return Totals(estimate.value, cluster_totals(influence, clusters), estimate.n, log_scale)

    @property
    def n_clusters(self) -> int:
        """G."""
        return len(self.totals)

    @property
    def scale_value(self) -> float:
        """The metric on its test scale: log(value) if log_scale, else the value."""
        return math.log(self.value) if self.log_scale else self.value

    @property
    def value_totals(self) -> Values:
        """The totals [G] in the unit of the value."""
        return self.value * self.totals if self.log_scale else self.totals

    def pseudo_values(self) -> Values:
        """[G]: scale_value + G / N times the totals, whose mean over clusters is scale_value again."""
        found: Values = self.scale_value + self.n_clusters / self.n * self.totals
        return found

    def error(self) -> Error | None:
        """The cluster-robust error on the test scale (CR1, G - 1 degrees of freedom); None for G < 2 and NaN."""
        return error_of_totals(self.totals, self.n)

    @property
    def stderr(self) -> float | None:
        """The cluster-robust standard error in the unit of the value; None where there is none."""
        error = error_of_totals(self.value_totals, self.n)
        return None if error is None else error.stderr

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """The interval of the value: exp() of that of its logarithm if log_scale; None where there is no error."""
        error = self.error()
        if error is None:
            return None
        low, high = error.interval(self.scale_value, level)
        return (math.exp(low), math.exp(high)) if self.log_scale else (low, high)


def stacked(draws: Sequence[Totals]) -> Values:
    """y [D, G] (quantbench.metrics.draws): the pseudo-values of D scores on the same items.

    Raises ValueError for no draws, or draws over other numbers of items or clusters.
    """
    if len({(draw.n, draw.n_clusters) for draw in draws}) != 1:
        sizes = [(draw.n, draw.n_clusters) for draw in draws]
        raise ValueError(f"draws are scored on the same items and clusters, not on {sizes}")
    return np.stack([draw.pseudo_values() for draw in draws])
