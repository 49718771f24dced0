"""Estimates against hand-computed cases, and their influence values against what an item more does to them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from quantbench.metrics import statistics
from quantbench.metrics.statistics import Estimate, Values


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


def test_word_perplexity_by_hand() -> None:
    found = statistics.word_perplexity(values(math.log(2), math.log(8)), values(10, 20), values(5, 25))
    assert found.value == pytest.approx(2 ** ((10 + 60) / 30))
    logs = np.array([10 - 70 / 30 * 5, 60 - 70 / 30 * 25]) / 15
    assert found.influence == pytest.approx(found.value * math.log(2) * logs)


def test_macro_mean_by_hand() -> None:
    found = statistics.macro_mean(values(1, 0, 1, 1), ["law", "art", "law", "art"])
    assert found.value == pytest.approx((1 + 0.5) / 2)
    assert found.influence == pytest.approx(values(0, -0.5, 0, 0.5))  # n / (K n_k) = 4 / (2 x 2) = 1
    uneven = statistics.macro_mean(values(3, 0, 2, 4), ["a", "b", "b", "b"])
    assert uneven.value == pytest.approx((3 + 2) / 2)
    assert uneven.influence == pytest.approx(values(0, *(4 / (2 * 3) * x for x in (-2, 0, 2))))


def test_macro_f1_by_hand() -> None:
    found = statistics.macro_f1(values(0, 0, 1, 2), values(0, 1, 1, 3), 4)
    assert found.value == pytest.approx((2 / 3 + 2 / 3 + 0 + 0) / 4)  # 3 is predicted and never right, 2 the reverse


def test_macro_f1_averages_over_all_labels_of_the_task_whatever_occurs() -> None:
    gold = values(0, 0, 1, 1)
    always = statistics.macro_f1(gold, values(0, 0, 1, 1), 3)
    once = statistics.macro_f1(gold, values(0, 0, 1, 2), 3)
    assert always.value == pytest.approx(2 / 3)
    assert once.value == pytest.approx((1 + 2 / 3 + 0) / 3)  # one item of four loses a ninth, not a quarter
    with pytest.raises(ValueError, match=r"^a label is a whole number from 0 to 1$"):
        statistics.macro_f1(gold, values(0, 0, 1, 2), 2)


N = 6
ESTIMATORS: dict[str, Callable[..., Estimate]] = {
    "mean": lambda x, t, b, k: statistics.mean(x),
    "weighted": lambda x, t, b, k: statistics.weighted_mean(x, t),
    "ratio": lambda x, t, b, k: statistics.ratio(x, b),
    "perplexity": lambda x, t, b, k: statistics.perplexity(x, t),
    "word_perplexity": lambda x, t, b, k: statistics.word_perplexity(x, t, b),
    "bits_per_byte": lambda x, t, b, k: statistics.bits_per_byte(x, t, b),
    "macro_mean": lambda x, t, b, k: statistics.macro_mean(x, [str(one) for one in k]),
    "macro_f1": lambda x, t, b, k: statistics.macro_f1(k, b, 4),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_influence_is_what_one_item_more_changes(name: str) -> None:
    """With m copies of every item, one more of item i moves the estimate by e_i / (n m), to first order."""
    generator = np.random.default_rng(3)
    copies = 20_000
    predicted = values(0, 1, 1, 2, 0, 2)
    columns = [
        generator.uniform(1, 2, N),
        generator.integers(5, 50, N).astype(np.float64),
        predicted if name == "macro_f1" else generator.integers(20, 90, N).astype(np.float64),
        values(0, 0, 1, 2, 2, 2),
    ]
    estimate = ESTIMATORS[name]
    found = estimate(*columns)
    assert found.influence.sum() == pytest.approx(0, abs=1e-12)
    assert found.influence.std() > 0.01
    for item in range(N):
        more = [np.append(np.repeat(column, copies), column[item]) for column in columns]
        moved = (estimate(*more).value - found.value) * N * copies
        assert moved == pytest.approx(found.influence[item], rel=1e-3, abs=1e-4)


def test_impossible_estimates_are_refused() -> None:
    empty = values()
    estimates: list[Callable[[], Estimate]] = [
        lambda: statistics.mean(empty),
        lambda: statistics.ratio(empty, empty),
        lambda: statistics.macro_mean(empty, []),
        lambda: statistics.macro_f1(empty, empty, 2),
    ]
    for estimate in estimates:
        with pytest.raises(ValueError, match=r"^an estimate needs at least one item$"):
            estimate()
    with pytest.raises(ValueError, match=r"^a loss of 1000 nats per token has no representable perplexity$"):
        statistics.perplexity(values(1000.0), values(1))
    with pytest.raises(ValueError, match=r"^a loss of 1000 nats per word has no representable perplexity$"):
        statistics.word_perplexity(values(1000.0), values(1), values(1))
