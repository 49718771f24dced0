"""Resampling as a check of the formulas, for estimates whose influences are themselves estimated, such as quantiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantbench.metrics.statistics import Values


def crossed(y: Values, repeats: int, rng: np.random.Generator) -> Values:
    """[repeats] means of a table y [D, G], draws and clusters resampled with replacement, each by itself.

    The pigeonhole bootstrap (Owen 2007): its variance counts what draws and clusters have together three times, so it
    lies above that of `quantbench.metrics.draws.crossed_error`. Of what D draws vary it has the share (D - 1) / D.
    """
    n_draws, n_clusters = y.shape
    draws = rng.multinomial(n_draws, np.full(n_draws, 1 / n_draws), size=repeats)
    clusters = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=repeats)
    found: Values = np.einsum("rd,dg,rg->r", draws, y, clusters) / y.size
    return found


def quantile(
    values: Values, cluster: NDArray[np.int64], alpha: float, repeats: int, rng: np.random.Generator
) -> Values:
    """[repeats] alpha quantiles of the values [T] at all positions, whole clusters resampled with replacement.

    cluster  int64 [T]: the number of the cluster that each position lies in, from 0
    """
    order = np.argsort(values, kind="stable")
    ordered, lies_in = values[order], cluster[order]
    n = int(cluster.max()) + 1
    found = np.empty(repeats)
    for i, counts in enumerate(rng.multinomial(n, np.full(n, 1 / n), size=repeats)):
        weights = np.cumsum(counts[lies_in])
        found[i] = ordered[np.searchsorted(weights, alpha * weights[-1])]
    return found
