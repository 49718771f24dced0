"""Estimates against hand-computed cases, against the textbook, and against repeated sampling."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from quantbench.metrics import metrics, statistics
from quantbench.metrics.comparison import align, compare
from quantbench.metrics.statistics import Values


def values(*numbers: float) -> Values:
    return np.array(numbers, dtype=np.float64)


def test_mean_and_its_error_by_hand() -> None:
    found = statistics.mean(values(1, 2, 3, 6))
    assert found.value == 3
    assert found.stderr == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3 / 4))
    assert found.n == 4


def test_perplexity_by_hand() -> None:
    found = statistics.perplexity(values(math.log(2), math.log(8)), values(10, 10))
    assert found.value == pytest.approx(4)
    assert found.stderr == pytest.approx(4 * math.log(2))  # sd of the losses is sqrt(2) ln 2, over sqrt(2)
    weighted = statistics.perplexity(values(math.log(2), math.log(8)), values(30, 10))
    assert weighted.value == pytest.approx(2 ** (6 / 4))


def test_bits_per_byte_by_hand() -> None:
    found = statistics.bits_per_byte(values(math.log(2), math.log(8)), values(10, 20), values(40, 60))
    assert found.value == pytest.approx((10 + 60) / 100)
    residuals = np.array([10 - 0.7 * 40, 60 - 0.7 * 60]) / 50
    assert found.stderr == pytest.approx(math.sqrt((residuals**2).sum() / (2 * 1)))


def test_one_item_has_no_error_and_two_equal_runs_no_difference() -> None:
    one = statistics.perplexity(values(1.0), values(10))
    assert one.stderr is None
    compared = compare(one, statistics.perplexity(values(0.5), values(10)))
    assert (compared.stderr, compared.lower, compared.upper, compared.n) == (None, None, None, 1)
    assert compared.difference == pytest.approx(math.e - math.sqrt(math.e))
    same = statistics.mean(values(1, 2, 3))
    equal = compare(same, same)
    assert (equal.difference, equal.stderr, equal.lower, equal.upper) == (0, 0, 0, 0)


def test_the_paired_interval_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(3, 1, 9), generator.normal(2.5, 1, 9)
    found = compare(statistics.mean(one), statistics.mean(other))
    interval = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx((interval.low, interval.high))
    assert found.stderr == pytest.approx(stats.sem(one - other))


def test_pairing_removes_what_both_runs_share() -> None:
    difficulty = np.random.default_rng(1).normal(3, 0.3, 8)
    tokens = np.full(8, 511.0)
    base = statistics.perplexity(difficulty, tokens)
    worse = statistics.perplexity(difficulty + 0.05, tokens)
    compared = compare(worse, base)
    assert base.stderr is not None
    assert compared.stderr is not None
    assert compared.stderr / compared.difference == pytest.approx(base.stderr / base.value)
    assert compared.stderr < base.stderr / 15


@pytest.mark.parametrize("kind", ["mean", "perplexity"])
def test_the_interval_covers_as_often_as_it_says(kind: str) -> None:
    """2,000 pairs of runs over 20 windows of differing length; a share of 0.95 has a standard error of 0.5 %."""
    generator = np.random.default_rng(7)
    n, repeats, shift, spread = 20, 2000, 0.08, 0.05
    covered = 0
    for _ in range(repeats):
        difficulty = generator.normal(3, 0.15, n)
        worse = difficulty + generator.normal(shift, spread, n)
        tokens = generator.integers(400, 600, n).astype(np.float64)
        if kind == "mean":
            found = compare(statistics.mean(worse), statistics.mean(difficulty))
            truth = shift
        else:
            pair = statistics.perplexity(worse, tokens), statistics.perplexity(difficulty, tokens)
            found = compare(*pair)
            truth = math.exp(3) * math.expm1(shift)
        assert found.lower is not None
        assert found.upper is not None
        covered += found.lower <= truth <= found.upper
    assert 0.93 < covered / repeats < 0.97


def test_alignment_is_by_item_and_refuses_other_items() -> None:
    order = align(["a", "b", "c"], ["c", "a", "b"])
    assert order.tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match=r"3 against 3, of which 2 occur on one side only \['c', 'd'\]"):
        align(["a", "b", "c"], ["a", "b", "d"])
    with pytest.raises(ValueError, match="must be the same"):
        align(["a"], ["a", "a"])


def test_impossible_estimates_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        statistics.mean(values())
    with pytest.raises(ValueError, match="a loss of 1000 nats per token has no representable perplexity"):
        statistics.perplexity(values(1000.0), values(1))
    with pytest.raises(ValueError, match="the same items: 2 against 3"):
        compare(statistics.mean(values(1, 2)), statistics.mean(values(1, 2, 3)))


def test_metrics_are_paired_by_item_id() -> None:
    items = pd.DataFrame({"item": ["a", "b", "c"], "n_tokens": [9, 9, 9], "nll": [1.0, 2.0, 3.0], "right": [1, 0, 1]})
    shuffled = items.iloc[[2, 0, 1]]
    found = metrics.paired("perplexity", items, shuffled)
    assert found is not None
    assert (found.difference, found.stderr) == pytest.approx((0, 0), abs=1e-12)
    right = metrics.paired("right", items, items.assign(right=[0, 0, 1]))
    assert right is not None
    assert right.difference == pytest.approx(1 / 3)
    assert metrics.paired("f1", items, items) is None
    assert metrics.unit("right") == "share of items"
    assert metrics.unit("kl") == "nats/token"


def test_measured_metrics_have_their_direction() -> None:
    items = pd.DataFrame({"n_tokens": [9, 9], "nll": [1.0, 1.0], "top1_agreement": [0.5, 1.0]})
    assert metrics.measure("perplexity", items).higher_is_better is False
    top = metrics.measure("top1_agreement", items)
    assert (top.value, top.stderr, top.n, top.higher_is_better) == (0.75, 0.25, 2, True)
