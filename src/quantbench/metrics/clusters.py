"""Errors of estimates whose items come in clusters: windows of one article, questions on one passage.

Items of one cluster resemble each other, and differences between two runs on them do so more than their levels: an
error that takes them as independent is too small. Clusters are independent, so what is counted are their totals.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np

from quantbench.metrics.errors import Error
from quantbench.metrics.statistics import Estimate, Values

RELIABLE = 8
"""From this number of clusters on, the t interval covers about what it says; below, it is marked as not reliable."""


def cluster_totals(influence: Values, clusters: Sequence[str]) -> Values:
    """The sums [G] of the influences [n] in each cluster, in the order of the clusters' names.

    Raises ValueError if there is not one cluster per item.
    """
    if len(clusters) != len(influence):
        raise ValueError(f"each item lies in one cluster: {len(influence)} items, {len(clusters)} clusters")
    names, index = np.unique(np.asarray(clusters, dtype=np.str_), return_inverse=True)
    return np.bincount(index, weights=influence, minlength=len(names)).astype(np.float64)


def cluster_error(estimate: Estimate, clusters: Sequence[str]) -> Error | None:
    """The cluster-robust error of an estimate; with an item per cluster it is `Estimate.stderr`."""
    return error_of_totals(cluster_totals(estimate.influence, clusters), estimate.n)


def error_of_totals(totals: Values, n: int) -> Error | None:
    """Var = G / (G - 1) sum_c T_c^2 / n^2 (CR1), df = G - 1, of the totals T [G] of n items' influences.

    (Cameron & Miller 2015.) None for one cluster, which cannot give an error, and for totals that are not finite.
    """
    n_clusters = len(totals)
    if n_clusters < 2 or not np.isfinite(totals).all():
        return None
    variance = n_clusters / (n_clusters - 1) * float(totals @ totals) / n**2
    return Error.of(math.sqrt(variance), n_clusters - 1)


def clusters_digest(items: Sequence[str], clusters: Sequence[str]) -> str:
    """sha256 over the sorted (item, cluster) pairs: scores with equal digests may be paired cluster by cluster."""
    digest = hashlib.sha256()
    for item, cluster in sorted(zip(items, clusters, strict=True)):
        digest.update(json.dumps([item, cluster]).encode() + b"\n")
    return digest.hexdigest()
