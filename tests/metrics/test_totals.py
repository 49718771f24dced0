"""A metric by clusters: what errors and draws need of a score is what its items would give."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quantbench.metrics import statistics
from quantbench.metrics.clusters import cluster_error, clusters_digest
from quantbench.metrics.draws import pseudo_values
from quantbench.metrics.totals import Totals, stacked

RNG = np.random.default_rng(0)
CLUSTERS = [f"c{i // 3}" for i in range(15)]
NLL, TOKENS = RNG.normal(3, 0.2, 15), RNG.integers(300, 500, 15).astype(np.float64)


def test_totals_give_the_error_and_pseudo_values_of_their_items() -> None:
    estimate = statistics.weighted_mean(NLL, TOKENS)
    found = Totals.of(estimate, CLUSTERS)
    expected = cluster_error(estimate, CLUSTERS)
    assert (found.n, found.n_clusters) == (15, 5)
    assert found.error() == expected
    assert expected is not None
    assert found.interval() == expected.interval(estimate.value)
    assert found.stderr == expected.stderr
    assert found.pseudo_values().mean() == pytest.approx(estimate.value)
    assert stacked([found, found]) == pytest.approx(pseudo_values([estimate, estimate], CLUSTERS))


def test_perplexity_is_tested_on_the_scale_of_its_loss() -> None:
    loss = Totals.of(statistics.weighted_mean(NLL, TOKENS), CLUSTERS)
    found = Totals.of(statistics.perplexity(NLL, TOKENS), CLUSTERS, log_scale=True)
    assert found.scale_value == pytest.approx(loss.value)
    assert found.totals == pytest.approx(loss.totals)
    assert found.pseudo_values() == pytest.approx(loss.pseudo_values())
    interval = loss.interval()
    assert interval is not None
    assert found.interval() == pytest.approx(tuple(math.exp(end) for end in interval))
    assert loss.stderr is not None
    assert found.stderr == pytest.approx(found.value * loss.stderr)


def test_without_clusters_or_influences_there_is_no_error() -> None:
    one = Totals.of(statistics.mean(NLL), ["same"] * 15)
    lost = Totals(2.5, np.full(4, np.nan), 15)
    for found in (one, lost):
        assert (found.error(), found.stderr, found.interval()) == (None, None, None)
    with pytest.raises(ValueError, match=r"not on \[\(15, 1\), \(15, 4\)\]"):
        stacked([one, lost])
    with pytest.raises(ValueError, match=r"not on \[\]"):
        stacked([])


def test_a_digest_tells_who_lies_with_whom_in_any_order() -> None:
    assert clusters_digest(["a", "b"], ["x", "y"]) == clusters_digest(["b", "a"], ["y", "x"])
    others = [(["a", "b"], ["x", "x"]), (["a", "c"], ["x", "y"]), (["a"], ["x"]), (["a", "b"], ["y", "x"])]
    assert len({clusters_digest(["a", "b"], ["x", "y"]), *(clusters_digest(*one) for one in others)}) == 5
