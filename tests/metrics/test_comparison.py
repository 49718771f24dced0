"""Paired differences against the textbook, and against repeated sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from quantbench.metrics import statistics
from quantbench.metrics.comparison import align, compare
from quantbench.metrics.statistics import Estimate, Values
from quantbench.metrics.totals import Totals


def values(*numbers: float) -> Values:
    return np.array(numbers, dtype=np.float64)


def alone(estimate: Estimate, log_scale: bool = False) -> Totals:
    """Each item its own cluster."""
    return Totals.of(estimate, [f"{i:04}" for i in range(estimate.n)], log_scale)


def test_one_item_has_no_error_and_two_equal_runs_no_difference() -> None:
    one = statistics.perplexity(values(1.0), values(10))
    assert one.stderr is None
    compared = compare(alone(one), alone(statistics.perplexity(values(0.5), values(10))))
    assert (compared.stderr, compared.lower, compared.upper, compared.n) == (None, None, None, 1)
    assert compared.difference == pytest.approx(math.e - math.sqrt(math.e))
    same = statistics.mean(values(1, 2, 3))
    equal = compare(alone(same), alone(same))
    assert (equal.difference, equal.stderr, equal.lower, equal.upper) == (0, 0, 0, 0)


def test_the_paired_interval_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(3, 1, 9), generator.normal(2.5, 1, 9)
    found = compare(alone(statistics.mean(one)), alone(statistics.mean(other)))
    interval = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx((interval.low, interval.high))
    assert found.stderr == pytest.approx(stats.sem(one - other))
    assert found.n == 9


def test_pairing_removes_what_both_runs_share() -> None:
    difficulty = np.random.default_rng(1).normal(3, 0.3, 8)
    tokens = np.full(8, 511.0)
    base = statistics.perplexity(difficulty, tokens)
    worse = statistics.perplexity(difficulty + 0.05, tokens)
    compared = compare(alone(worse, True), alone(base, True))
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
            found = compare(alone(statistics.mean(worse)), alone(statistics.mean(difficulty)))
            truth = shift
        else:
            one, other = (alone(statistics.perplexity(losses, tokens)) for losses in (worse, difficulty))
            found = compare(one, other)
            truth = math.exp(3) * math.expm1(shift)
        assert found.lower is not None
        assert found.upper is not None
        covered += found.lower <= truth <= found.upper
    assert 0.93 < covered / repeats < 0.97


def test_alignment_is_by_item_and_refuses_other_items() -> None:
    order = align(["a", "b", "c"], ["c", "a", "b"])
    assert order.tolist() == [1, 2, 0]
    assert align([], []).dtype == np.intp
    with pytest.raises(ValueError, match=r"3 against 3, of which 2 occur on one side only \['c', 'd'\]$"):
        align(["a", "b", "c"], ["a", "b", "d"])
    with pytest.raises(ValueError, match=r"of which 4 occur on one side only \['a', 'b', 'c'\]$"):
        align(["a", "b"], ["c", "d"])


@pytest.mark.parametrize(("ids", "others"), [(["a"], ["a", "a"]), (["a", "a"], ["a"]), (["a", "a"], ["a", "a"])])
def test_items_that_repeat_are_not_aligned(ids: list[str], others: list[str]) -> None:
    with pytest.raises(ValueError, match="must be the same"):
        align(ids, others)


def test_estimates_over_other_numbers_of_items_are_not_compared() -> None:
    with pytest.raises(ValueError, match=r"need the same items and clusters: \(2, 2\) against \(3, 3\)$"):
        compare(alone(statistics.mean(values(1, 2))), alone(statistics.mean(values(1, 2, 3))))
