"""Metrics by name: from items to a number with its unit and direction."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from quantbench.core.errors import StoreError
from quantbench.metrics import metrics, positions, statistics

ITEMS = pd.DataFrame(
    {
        "item": ["a", "b", "c", "d"],
        "document": ["law", "art", "law", "art"],
        "cluster": ["a", "b", "c", "d"],
        "n_tokens": [10, 20, 30, 40],
        "n_bytes": [40, 90, 100, 190],
        "n_words": [8, 15, 22, 30],
        "nll": [1.0, 2.0, 1.5, 0.5],
        "kl": [0.1, 0.0, 0.2, 0.3],
        "top1_agreement": [0.9, 1.0, 0.8, 0.7],
        "reverse_kl": [0.2, 0.0, 0.2, 0.1],
        "squared_dp": [0.04, 0.0, 0.01, 0.02],
        "n_confident": [5, 20, 0, 25],
        "kl_confident": [0.1, 0.0, 0.0, 0.2],
        "kl_unsure": [0.1, 0.0, 0.2, 0.4],
        "acc": [1, 0, 0, 1],
        "gold": [0, 1, 2, 1],
        "predicted": [0, 1, 1, 2],
        "n_labels": [4, 4, 4, 4],
        "tp": [1, 0, 2, 0],
        "n_predicted": [1, 1, 3, 0],
        "n_gold": [1, 2, 2, 0],
    }
)
LOSS = (10 + 40 + 45 + 20) / 100
"""Nats per token of ITEMS."""


@pytest.mark.parametrize(
    ("name", "value", "unit", "is_relative"),
    [
        ("perplexity", math.exp(LOSS), "per token", False),
        ("nll", LOSS, "nats/token", False),
        ("bits_per_byte", 115 / 420 / math.log(2), "bits/byte", False),
        ("word_perplexity", math.exp(115 / 75), "per word", False),
        ("kl", (1 + 0 + 6 + 12) / 100, "nats/token", True),
        ("top1_agreement", (9 + 20 + 24 + 28) / 100, "share of tokens", True),
        ("reverse_kl", (2 + 0 + 6 + 4) / 100, "nats/token", True),
        ("rms_dp", math.sqrt((0.4 + 0 + 0.3 + 0.8) / 100), "probability", True),
        ("kl_confident", (0.5 + 5) / 50, "nats/token", True),
        ("kl_unsure", (0.5 + 6 + 6) / 50, "nats/token", True),
        ("acc", 0.5, "share of items", False),
        ("macro_acc", 0.5, "share of items", False),
        ("macro_f1", (1 + 0.5 + 0 + 0) / 4, "mean over labels", False),
        ("span_f1", 2 * 3 / (5 + 5), "over spans", False),
    ],
)
def test_every_metric_is_made_from_its_columns(name: str, value: float, unit: str, is_relative: bool) -> None:
    found = metrics.measure(name, ITEMS)
    assert (found.name, found.n) == (name, 4)
    assert found.value == pytest.approx(value)
    assert (metrics.unit(name), metrics.is_relative(name)) == (unit, is_relative)
    source = metrics.COLUMNS.get(name, name)
    assert metrics.estimate(name, ITEMS.drop(columns=source)) is None
    with pytest.raises(StoreError, match=f"metric {name}: the items have only the columns item, document"):
        metrics.measure(name, ITEMS.drop(columns=source))


def test_nothing_to_find_and_nothing_found_is_a_full_score() -> None:
    nothing = ITEMS.assign(tp=0, n_predicted=0, n_gold=0)
    found = metrics.estimate("span_f1", nothing)
    assert found is not None
    assert (found.value, found.stderr) == (1, 0)


def test_items_that_prove_nothing_are_refused() -> None:
    metrics.check_items(ITEMS, 4, "the items")
    for items, told in (
        (ITEMS.drop(columns=["item", "cluster"]), r"the items lack the columns \['item', 'cluster'\]"),
        (ITEMS.iloc[:3], "the items: 3 rows, 3 ids; the score has 4"),
        (ITEMS.assign(item=["a", "b", "c", "a"]), "4 rows, 3 ids; the score has 4"),
        (ITEMS.assign(kl=[0, 0, np.inf, 0], nll=[0, np.nan, 0, 0]), r"not finite in \['nll', 'kl'\]"),
    ):
        with pytest.raises(StoreError, match=told):
            metrics.check_items(items, 4, "the items")


def test_weighted_means_by_name_are_those_of_the_statistics() -> None:
    direct = statistics.weighted_mean(metrics.column(ITEMS, "kl"), metrics.column(ITEMS, "n_tokens"))
    assert metrics.measure("kl", ITEMS).stderr == pytest.approx(direct.stderr)
    together = metrics.measure("kl", ITEMS.assign(cluster=["x", "x", "y", "y"])).stderr
    assert together == pytest.approx(math.sqrt(2 / 1 * 2 * direct.influence[:2].sum() ** 2) / 4)
    assert metrics.measure("kl", ITEMS.assign(cluster="x")).stderr is None


def test_metrics_are_paired_by_item_id() -> None:
    items = pd.DataFrame({"item": ["a", "b", "c"], "n_tokens": [9, 9, 9], "nll": [1.0, 2.0, 3.0], "right": [1, 0, 1]})
    items["cluster"] = ["x", "y", "z"]
    shuffled = items.iloc[[2, 0, 1]]
    found = metrics.paired("perplexity", items, shuffled)
    assert found is not None
    assert (found.difference, found.stderr) == pytest.approx((0, 0), abs=1e-12)
    right = metrics.paired("right", items, items.assign(right=[0, 0, 1]))
    assert right is not None
    assert right.difference == pytest.approx(1 / 3)
    assert metrics.paired("f1", items, items) is None
    with pytest.raises(ValueError, match="must lie in the same clusters"):
        metrics.paired("right", items, items.assign(cluster="x"))


def test_measured_metrics_have_their_direction() -> None:
    lower = {"perplexity", "nll", "bits_per_byte", "kl", "word_perplexity", "pct_stereotype", "likelihood_diff"}
    lower |= {"reverse_kl", "rms_dp", *positions.NAMES, *positions.BUCKETS}
    given = {name: statistics.mean(np.ones(4)) for name in positions.NAMES}
    items = ITEMS.assign(pct_stereotype=0.5, likelihood_diff=0.5, exact_match=1.0, acc_norm=1.0, anything=0.0)
    for name in [*(metrics.METRICS.keys() - metrics.ANSWERS), "anything"]:
        assert metrics.measure(name, items, given).higher_is_better == (name not in lower)
    assert metrics.item_word("kl") == "windows"
    assert metrics.item_word("acc") == "items"
