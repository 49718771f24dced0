"""Metrics of running text that means over windows do not give: they are computed from the outcome at each position.

A frame of positions has one row per scored position, those of an item together: item, position, nll, and where a
reference was at hand kl, reverse_kl, delta_p, same_top1, entropy (quantbench.tasks.positions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from quantbench.core.errors import StoreError
from quantbench.metrics.quantiles import maximum, quantile
from quantbench.metrics.statistics import Estimate, Values

QUANTILES = {"kl_median": 0.5, "kl_p90": 0.9, "kl_p99": 0.99, "kl_p999": 0.999}
"""Quantiles of the KL divergence over all positions."""

NAMES = (*QUANTILES, "kl_max")
"""The metrics that `estimates` gives."""

BUCKETS = ("kl_confident", "kl_unsure")
"""Item columns of the mean KL divergence where the reference is surer of the next token, or less sure, than usual."""


def item_numbers(positions: pd.DataFrame, items: Sequence[str]) -> NDArray[np.int64]:
    """int64 [T]: which of `items` each position lies in. Raises StoreError for a position of none of them."""
    numbers = pd.Index(items).get_indexer(pd.Index(positions["item"]))
    if (numbers < 0).any():
        unknown = positions["item"][numbers < 0].iloc[0]
        raise StoreError(f"positions lie in item {unknown!r}, which the score does not have")
    return numbers.astype(np.int64)


def estimates(positions: pd.DataFrame, items: Sequence[str]) -> Mapping[str, Estimate]:
    """The metrics of NAMES, with influences in the order of `items`; none where there was no reference."""
    if "kl" not in positions:
        return {}
    kl, item = positions["kl"].to_numpy(np.float64), item_numbers(positions, items)
    found = {name: quantile(kl, item, len(items), alpha) for name, alpha in QUANTILES.items()}
    return found | {"kl_max": maximum(kl, len(items))}


def by_confidence(kl: Values, entropy: Values, item: NDArray[np.int64], n: int) -> pd.DataFrame:
    """Item columns n_confident, kl_confident, kl_unsure from kl and the reference's entropy [T], in nats.

    A position is confident where the reference's entropy is below its median over all positions of the test set, else
    unsure. n_confident counts an item's confident positions; the others are means over its positions of either kind, 0
    where it has none.
    """
    confident = entropy < np.median(entropy)
    found: dict[str, Values] = {"n_confident": np.bincount(item[confident], minlength=n).astype(np.float64)}
    for name, chosen in zip(BUCKETS, (confident, ~confident), strict=True):
        total = np.bincount(item[chosen], weights=kl[chosen], minlength=n)
        found[name] = total / np.maximum(np.bincount(item[chosen], minlength=n), 1)
    return pd.DataFrame(found)
