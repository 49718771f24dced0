"""Answers that quantization changes: metrics of tasks that need full precision's answers to the same questions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from quantbench.metrics import flips
from quantbench.metrics.metric import Metric
from quantbench.metrics.metrics import METRICS
from quantbench.metrics.recovery import recovery
from quantbench.metrics.statistics import Estimate, Values
from quantbench.metrics.totals import Totals
from quantbench.store.records import Score
from quantbench.store.store import Store

RIGHT_OR_WRONG = ("accuracy", "acc", "exact_match", "acc_norm")
"""Metrics of which each item is right or wrong; the first that a task has is the one whose answers are compared."""

CHANGES = {"agreement": flips.agreement, "flips_wrong": flips.flips_wrong, "flips_right": flips.flips_right}
"""Metrics of two aligned columns of items that are right (1) or wrong (0): quantized, and in full precision."""

ByCluster = tuple[Score, dict[str, Totals]]
"""A score and the totals of its metrics."""


def answered(totals: dict[str, Totals]) -> str | None:
    """The metric whose items are right or wrong, None if there is none."""
    return next((name for name in RIGHT_OR_WRONG if name in totals), None)


def changed_answers(store: Store, name: str, own: ByCluster, full: ByCluster) -> list[tuple[Metric, Totals]]:
    """CHANGES between two scores over the same items in the same clusters; nothing where items are not 0 or 1.

    Items are read only where a cluster holds several; nothing where these are left out, as of merged scores. Raises
    StoreError if they are damaged.
    """
    if own[0].n_clusters == own[0].n_items:
        ours, theirs = (outcomes(totals[name]) for _, totals in (own, full))
        clusters = None
    elif not all(store.has_items(one.run_id, one.task, one.protocol) for one, _ in (own, full)):
        return []
    else:
        frames = [store.load_items(one.run_id, one.task, one.protocol).sort_values("item") for one, _ in (own, full)]
        ours, theirs = (_right_or_wrong(frame[name].to_numpy(np.float64)) for frame in frames)
        clusters = frames[0]["cluster"].astype(str).tolist()
    if ours is None or theirs is None:
        return []
    found = []
    for metric, estimated in CHANGES.items():
        estimate = estimated(ours, theirs)
        one = Totals(estimate.value, estimate.influence, estimate.n)  # an item a cluster, in the order of `outcomes`
        found.append(_measured(metric, one if clusters is None else Totals.of(estimate, clusters)))
    return found


def outcomes(totals: Totals) -> Values | None:
    """The items' values [N] where each lies in a cluster of its own and is 0 or 1, in the order of the clusters.

    An item's influence on a mean is its value minus the mean.
    """
    return None if len(totals.totals) != totals.n else _right_or_wrong(totals.totals + totals.value)


def recovered(own: Totals, full: Totals, chance: float) -> tuple[Metric, dict[str, tuple[float, float]]] | None:
    """Recovery in %, and its interval where it has one; None where full precision is not clearly above chance."""
    names = sorted(str(index) for index in range(len(own.totals)))  # the order of the totals
    ours, theirs = (Estimate(one.value, one.totals * (len(one.totals) / one.n)) for one in (own, full))
    found = recovery(ours, theirs, chance, names)
    if found is None:
        return None
    metric = Metric(name="recovery", value=100 * found.value, stderr=None, n=own.n, higher_is_better=True)
    if found.lower is None or found.upper is None:
        return metric, {}
    return metric, {"recovery": (100 * found.lower, 100 * found.upper)}


def chance_level(items: pd.DataFrame) -> float | None:
    """The share that guessing gets right: 1 / number of answers; 0 where they are generated; None if not known."""
    if "unfinished" in items:
        return 0.0
    if "n_labels" in items:
        return float((1 / items["n_labels"]).mean())
    if "log_likelihoods" in items:
        counts = items["log_likelihoods"].map(len)
        return float((1 / counts).mean()) if (counts > 1).all() else None
    return None


def _right_or_wrong(values: Values) -> Values | None:
    whole: Values = np.round(values)
    return whole if np.allclose(values, whole, atol=1e-6) and np.isin(whole, (0, 1)).all() else None


def _measured(name: str, totals: Totals) -> tuple[Metric, Totals]:
    error = totals.error()
    better = METRICS[name].higher_is_better
    stderr = None if error is None else error.stderr
    return Metric(name=name, value=totals.value, stderr=stderr, n=totals.n, higher_is_better=better), totals
