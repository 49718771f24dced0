"""What each metric means: its unit, its direction, and how it is estimated from per-item outcomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from quantbench.core.errors import StoreError
from quantbench.metrics import statistics
from quantbench.metrics.comparison import Comparison, align, compare
from quantbench.metrics.metric import Metric
from quantbench.metrics.statistics import Estimate, Values


@dataclass(frozen=True)
class MetricInfo:
    """A metric's unit and direction.

    estimate    from items [n] to the metric
    relative    it is measured against the full-precision run already: a difference from that run would say nothing
    items       what an item is called
    """

    unit: str
    higher_is_better: bool
    estimate: Callable[[pd.DataFrame], Estimate]
    relative: bool = False
    items: str = "windows"


def column(items: pd.DataFrame, name: str) -> Values:
    """One column of per-item outcomes as float64 [n]."""
    return items[name].to_numpy(dtype=np.float64)


def _per_token(name: str) -> Callable[[pd.DataFrame], Estimate]:
    return lambda items: statistics.weighted_mean(column(items, name), column(items, "n_tokens"))


def _perplexity(items: pd.DataFrame) -> Estimate:
    return statistics.perplexity(column(items, "nll"), column(items, "n_tokens"))


def _bits_per_byte(items: pd.DataFrame) -> Estimate:
    return statistics.bits_per_byte(column(items, "nll"), column(items, "n_tokens"), column(items, "n_bytes"))


def _word_perplexity(items: pd.DataFrame) -> Estimate:
    return statistics.word_perplexity(column(items, "nll"), column(items, "n_tokens"), column(items, "n_words"))


def _mean(name: str) -> Callable[[pd.DataFrame], Estimate]:
    return lambda items: statistics.mean(column(items, name))


def _macro(name: str) -> Callable[[pd.DataFrame], Estimate]:
    return lambda items: statistics.macro_mean(column(items, name), items["document"].tolist())


LOWER_IS_BETTER = {"pct_stereotype": "share of items", "likelihood_diff": "nats"}
"""Means of item columns of which the smaller is better, and their units."""

MACRO = ("acc", "acc_norm", "exact_match")
"""Item columns of which macro_<name> is the mean over documents (subtasks) of the mean in each."""


def _macro_f1(items: pd.DataFrame) -> Estimate:
    n_labels = int(column(items, "n_labels")[0]) if len(items) else 0
    return statistics.macro_f1(column(items, "gold"), column(items, "predicted"), n_labels)


def _span_f1(items: pd.DataFrame) -> Estimate:
    spans = column(items, "n_predicted") + column(items, "n_gold")
    if not spans.any():  # nothing to find, and nothing written
        return statistics.mean(np.ones(len(items)))
    return statistics.ratio(2 * column(items, "tp"), spans)


METRICS: dict[str, MetricInfo] = {
    "perplexity": MetricInfo("per token", False, _perplexity),
    "nll": MetricInfo("nats/token", False, _per_token("nll")),
    "bits_per_byte": MetricInfo("bits/byte", False, _bits_per_byte),
    "kl": MetricInfo("nats/token", False, _per_token("kl"), relative=True),
    "top1_agreement": MetricInfo("share of tokens", True, _per_token("top1_agreement"), relative=True),
    "word_perplexity": MetricInfo("per word", False, _word_perplexity, items="items"),
    **{name: MetricInfo(unit, False, _mean(name), items="items") for name, unit in LOWER_IS_BETTER.items()},
    **{f"macro_{name}": MetricInfo("share of items", True, _macro(name), items="items") for name in MACRO},
    "macro_f1": MetricInfo("mean over labels", True, _macro_f1, items="items"),
    "span_f1": MetricInfo("over spans", True, _span_f1, items="items"),
}
"""Metrics with an estimator of their own. Any other is the plain mean of the item column that has its name."""

COLUMNS = {
    "perplexity": "nll",
    "bits_per_byte": "nll",
    "word_perplexity": "nll",
    "macro_f1": "n_labels",
    "span_f1": "tp",
    **{f"macro_{name}": name for name in MACRO},
}
"""The item column a metric is computed from, where it is not the one that has its name."""


def unit(name: str) -> str:
    """The unit of a metric; a metric that is not listed is a share of items."""
    return METRICS[name].unit if name in METRICS else "share of items"


def item_word(name: str) -> str:
    """What the items of a metric are called; those of a metric that is not listed are items."""
    return METRICS[name].items if name in METRICS else "items"


def is_relative(name: str) -> bool:
    """Whether the metric is a comparison with the full-precision run in itself."""
    return name in METRICS and METRICS[name].relative


def estimate(name: str, items: pd.DataFrame) -> Estimate | None:
    """The metric from its items; None if they lack what it is computed from (then no paired difference can be had)."""
    if COLUMNS.get(name, name) not in items:
        return None
    return METRICS[name].estimate(items) if name in METRICS else statistics.mean(column(items, name))


def measure(name: str, items: pd.DataFrame) -> Metric:
    """A metric with its standard error, as it is stored in a score. Raises StoreError if the items cannot give it."""
    found = estimate(name, items)
    if found is None:
        raise StoreError(f"metric {name}: the items have only the columns {', '.join(map(str, items.columns))}")
    better = METRICS[name].higher_is_better if name in METRICS else True
    return Metric(name=name, value=found.value, stderr=found.stderr, n=found.n, higher_is_better=better)


def paired(name: str, items: pd.DataFrame, others: pd.DataFrame) -> Comparison | None:
    """The metric of `items` minus that of `others`, paired by item id; None where a side cannot give the metric.

    Raises ValueError if the two are not over the same items.
    """
    order = align(items["item"].tolist(), others["item"].tolist())
    candidate, baseline = estimate(name, items), estimate(name, others.iloc[order])
    return None if candidate is None or baseline is None else compare(candidate, baseline)


def check_items(items: pd.DataFrame, n_items: int, name: str) -> None:
    """Refuse (StoreError) items without ids, with ids that repeat, of another number, or with NaN or infinity."""
    missing = [column for column in ("item", "document") if column not in items]
    if missing:
        raise StoreError(f"{name} lack the columns {missing}")
    if len(items) != n_items or items["item"].nunique() != len(items):
        raise StoreError(f"{name}: {len(items)} rows, {items['item'].nunique()} ids; the score has {n_items}")
    numbers = items.drop(columns=["item", "document"]).select_dtypes("number")
    bad = [column for column in numbers if not np.isfinite(numbers[column]).all()]
    if bad:
        raise StoreError(f"{name} hold values that are not finite in {bad}: the model's outputs overflowed")
