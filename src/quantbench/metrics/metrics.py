"""What each metric means: its unit, its direction, and how it is estimated from per-item outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from quantbench.core.errors import StoreError
from quantbench.metrics import statistics
from quantbench.metrics.comparison import Comparison, align, compare
from quantbench.metrics.metric import Metric
from quantbench.metrics.positions import BUCKETS, NAMES
from quantbench.metrics.statistics import Estimate, Values
from quantbench.metrics.totals import Totals

LABELS = ("item", "document", "cluster")
"""Columns that all items have: their id, what they were taken from, and what they are correlated within."""


@dataclass(frozen=True)
class MetricInfo:
    """A metric's unit and direction.

    estimate    from items [n] to the metric; None: items do not give it (quantbench.metrics.positions)
    relative    it is measured against the full-precision run already: a difference from that run would say nothing
    items       what an item is called
    log_scale   tests are on the logarithm of the value
    """

    unit: str
    higher_is_better: bool
    estimate: Callable[[pd.DataFrame], Estimate] | None
    relative: bool = False
    items: str = "windows"
    log_scale: bool = False


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


def _rms_dp(items: pd.DataFrame) -> Estimate:
    return statistics.root_mean_square(column(items, "squared_dp"), column(items, "n_tokens"))


def _bucket(name: str) -> Callable[[pd.DataFrame], Estimate]:
    def found(items: pd.DataFrame) -> Estimate:
        confident = column(items, "n_confident")
        return statistics.weighted_mean(
            column(items, name), confident if name == BUCKETS[0] else column(items, "n_tokens") - confident
        )

    return found


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


ANSWERS = {
    name: MetricInfo(unit, better, None, relative=True, items="items")
    for name, unit, better in (
        ("agreement", "share of items", True),
        ("flips_wrong", "share of items", False),
        ("flips_right", "share of items", True),
        ("recovery", "%", True),
    )
}
"""Metrics of answers beside those of full precision: made when results are collated, from two scores."""

METRICS: dict[str, MetricInfo] = {
    "perplexity": MetricInfo("per token", False, _perplexity, log_scale=True),
    "nll": MetricInfo("nats/token", False, _per_token("nll")),
    "bits_per_byte": MetricInfo("bits/byte", False, _bits_per_byte),
    "kl": MetricInfo("nats/token", False, _per_token("kl"), relative=True),
    **{name: MetricInfo("nats", False, None, relative=True) for name in NAMES},
    **{name: MetricInfo("nats/token", False, _bucket(name), relative=True) for name in BUCKETS},
    "reverse_kl": MetricInfo("nats/token", False, _per_token("reverse_kl"), relative=True),
    "top1_agreement": MetricInfo("share of tokens", True, _per_token("top1_agreement"), relative=True),
    "rms_dp": MetricInfo("probability", False, _rms_dp, relative=True),
    "word_perplexity": MetricInfo("per word", False, _word_perplexity, items="items", log_scale=True),
    **{name: MetricInfo(unit, False, _mean(name), items="items") for name, unit in LOWER_IS_BETTER.items()},
    **{f"macro_{name}": MetricInfo("share of items", True, _macro(name), items="items") for name in MACRO},
    "macro_f1": MetricInfo("mean over labels", True, _macro_f1, items="items"),
    "span_f1": MetricInfo("over spans", True, _span_f1, items="items"),
    **ANSWERS,
}
"""Metrics with an estimator of their own. Any other is the plain mean of the item column that has its name."""

COLUMNS = {
    "perplexity": "nll",
    "bits_per_byte": "nll",
    "word_perplexity": "nll",
    "rms_dp": "squared_dp",
    "macro_f1": "n_labels",
    "span_f1": "tp",
    **{f"macro_{name}": name for name in MACRO},
}
"""The item column a metric is computed from, where it is not the one that has its name."""


def unit(name: str) -> str:
    """The unit of a metric; a metric that is not listed is a share of items."""
    return METRICS[name].unit if name in METRICS else "share of items"


def higher_is_better(name: str) -> bool:
    """The direction of a metric; of one that is not listed, more is better."""
    return METRICS[name].higher_is_better if name in METRICS else True


def item_word(name: str) -> str:
    """What the items of a metric are called; those of a metric that is not listed are items."""
    return METRICS[name].items if name in METRICS else "items"


def is_relative(name: str) -> bool:
    """Whether the metric is a comparison with the full-precision run in itself."""
    return name in METRICS and METRICS[name].relative


def is_log_scale(name: str) -> bool:
    """Whether tests of the metric are on its logarithm."""
    return name in METRICS and METRICS[name].log_scale


def estimate(name: str, items: pd.DataFrame) -> Estimate | None:
    """The metric from its items; None if they lack what it is computed from (then no paired difference can be had)."""
    if name not in METRICS:
        return statistics.mean(column(items, name)) if name in items else None
    found = METRICS[name].estimate
    return None if found is None or COLUMNS.get(name, name) not in items else found(items)


def totals(name: str, items: pd.DataFrame, given: Mapping[str, Estimate] | None = None) -> Totals | None:
    """The metric by the clusters of its items; None if it is neither given nor can be had from them."""
    found = (given or {}).get(name) or estimate(name, items)
    return None if found is None else Totals.of(found, items["cluster"].tolist(), is_log_scale(name))


def measure(name: str, items: pd.DataFrame, given: Mapping[str, Estimate] | None = None) -> Metric:
    """A metric with its cluster-robust standard error, as it is stored in a score.

    given  estimates that the items do not give, by the name of the metric. Raises StoreError if it cannot be had.
    """
    found = totals(name, items, given)
    if found is None:
        raise StoreError(f"metric {name}: the items have only the columns {', '.join(map(str, items.columns))}")
    better = higher_is_better(name)
    return Metric(name=name, value=found.value, stderr=found.stderr, n=found.n, higher_is_better=better)


def paired(name: str, items: pd.DataFrame, others: pd.DataFrame) -> Comparison | None:
    """The metric of `items` minus that of `others`, paired by item id; None where a side cannot give the metric.

    Its error is over the clusters of the items. Raises ValueError if the two are not the same items in the same
    clusters.
    """
    others = others.iloc[align(items["item"].tolist(), others["item"].tolist())]
    if items["cluster"].tolist() != others["cluster"].tolist():
        raise ValueError("paired items must lie in the same clusters")
    candidate, baseline = totals(name, items), totals(name, others)
    return None if candidate is None or baseline is None else compare(candidate, baseline)


def check_items(items: pd.DataFrame, n_items: int, name: str) -> None:
    """Refuse (StoreError) items without ids, with ids that repeat, of another number, or with NaN or infinity."""
    missing = [column for column in LABELS if column not in items]
    if missing:
        raise StoreError(f"{name} lack the columns {missing}")
    if len(items) != n_items or items["item"].nunique() != len(items):
        raise StoreError(f"{name}: {len(items)} rows, {items['item'].nunique()} ids; the score has {n_items}")
    numbers = items.drop(columns=list(LABELS)).select_dtypes("number")
    bad = [column for column in numbers if not np.isfinite(numbers[column]).all()]
    if bad:
        raise StoreError(f"{name} hold values that are not finite in {bad}: the model's outputs overflowed")
