"""Quantiles over positions: exact values, and errors against repeated sampling."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from quantbench.core.errors import StoreError
from quantbench.metrics import bootstrap
from quantbench.metrics.positions import NAMES, by_confidence, estimates
from quantbench.metrics.quantiles import maximum, quantile, sparsity
from quantbench.metrics.totals import Totals


def test_a_quantile_is_the_smallest_value_that_the_share_does_not_exceed() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1.0, 11.0))
    item = np.arange(10)
    expected = {0.5: 5, 0.51: 6, 0.9: 9, 0.99: 10, 0.999: 10}
    assert {alpha: quantile(values, item, 10, alpha).value for alpha in expected} == expected
    with pytest.raises(ValueError, match="at least one value"):
        quantile(np.empty(0), np.empty(0, dtype=np.int64), 0, 0.5)


def test_influences_add_up_to_nothing_and_lie_on_the_right_side() -> None:
    values, item = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), np.array([0, 0, 0, 1, 1, 3])
    found = quantile(values, item, 4, 0.5)
    assert found.influence.sum() == pytest.approx(0)
    slope = sparsity(values, 0.5)
    assert found.influence == pytest.approx(4 / 6 * slope * np.array([-1.5, 1.0, 0.0, 0.5]))
    same = quantile(np.zeros(6), item, 4, 0.99)
    assert (same.value, same.influence.tolist()) == (0, [0, 0, 0, 0])
    top = maximum(values, 4)
    assert top.value == 6
    assert Totals.of(top, ["a", "b", "c", "d"]).error() is None


def test_the_sparsity_is_the_slope_of_the_quantile_function() -> None:
    uniform = (np.arange(10_000) + 0.5) / 10_000
    assert sparsity(uniform, 0.5) == pytest.approx(1, rel=1e-2)
    assert sparsity(-np.log1p(-uniform), 0.9) == pytest.approx(10, rel=0.1)  # exponential: 1 / (1 - alpha)


@pytest.mark.parametrize(("alpha", "bounds"), [(0.5, (0.85, 1.2)), (0.9, (0.8, 1.25)), (0.99, (0.6, 1.5))])
def test_the_error_of_a_quantile_is_its_spread_over_samples(alpha: float, bounds: tuple[float, float]) -> None:
    """20 windows of 100 positions each, whose levels differ: positions are far from independent."""
    rng = np.random.default_rng(1)
    item = np.repeat(np.arange(20), 100)
    values, errors = [], []
    for _ in range(200):
        sample = np.exp(np.repeat(rng.normal(0, 0.4, 20), 100) + rng.normal(size=2000))
        found = quantile(sample, item, 20, alpha)
        values.append(found.value)
        errors.append(found.stderr)
    typical = math.sqrt(np.mean(np.square(np.array(errors, dtype=np.float64))))
    assert bounds[0] < typical / np.std(values) < bounds[1]


@pytest.mark.parametrize("alpha", [0.5, 0.9])
def test_resampled_clusters_have_the_error_of_the_formula(alpha: float) -> None:
    rng = np.random.default_rng(2)
    item = np.repeat(np.arange(60), 50)
    values = np.exp(np.repeat(rng.normal(0, 0.4, 60), 50) + rng.normal(size=3000))
    found = quantile(values, item, 60, alpha)
    resampled = bootstrap.quantile(values, item, alpha, 400, rng)
    assert found.stderr is not None
    assert 0.75 < np.std(resampled) / found.stderr < 1.3
    assert abs(np.mean(resampled) - found.value) < found.stderr


def test_metrics_of_positions_follow_the_order_of_the_items() -> None:
    frame = pd.DataFrame({"item": pd.Categorical(["b", "b", "a", "a"]), "kl": [1.0, 2.0, 3.0, 4.0]})
    found = estimates(frame, ["a", "b"])
    assert tuple(found) == NAMES
    assert (found["kl_median"].value, found["kl_max"].value) == (2.0, 4.0)
    assert found["kl_median"].influence[0] == -found["kl_median"].influence[1] > 0
    assert estimates(frame.drop(columns="kl"), ["a", "b"]) == {}
    with pytest.raises(StoreError, match="positions lie in item 'b', which the score does not have"):
        estimates(frame, ["a"])


def test_confident_positions_are_those_below_the_median_entropy_of_the_test_set() -> None:
    kl = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = by_confidence(kl, np.array([0.1, 0.9, 0.2, 0.5, 0.8]), np.array([0, 0, 0, 1, 1]), 3)
    assert found["n_confident"].tolist() == [2, 0, 0]
    assert found["kl_confident"].tolist() == [2, 0, 0]
    assert found["kl_unsure"].tolist() == [2, 4.5, 0]
