"""Errors over clusters and draws, against the textbook, by exact small cases, and by repeated sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from quantbench.metrics import bootstrap, statistics
from quantbench.metrics.clusters import cluster_error, cluster_totals
from quantbench.metrics.draws import crossed_error, gap_error, mean_squares, pseudo_values
from quantbench.metrics.errors import Error, Source
from quantbench.metrics.multiplicity import benjamini_hochberg, holm
from quantbench.metrics.paired_shares import bonett_price, mcnemar_mid_p
from quantbench.metrics.recovery import recovery
from quantbench.metrics.verdict import Verdict, verdict
from sampled import World, discordant


def test_items_that_are_their_own_clusters_have_the_error_of_independent_items() -> None:
    values = np.random.default_rng(0).normal(size=11)
    estimate = statistics.mean(values)
    error = cluster_error(estimate, [str(i) for i in range(11)])
    assert error is not None
    assert error.stderr == pytest.approx(estimate.stderr)
    assert error.interval(estimate.value) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.95))
    assert error.p_value(estimate.value) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_clusters_of_equal_size_have_the_error_of_their_means() -> None:
    values = np.random.default_rng(1).normal(size=(6, 5))
    estimate = statistics.mean(values.ravel())
    error = cluster_error(estimate, [f"c{i}" for i in range(6) for _ in range(5)])
    assert error is not None
    assert error.stderr == pytest.approx(stats.sem(values.mean(axis=1)))


def test_copies_of_an_item_in_its_cluster_change_no_error() -> None:
    values = np.random.default_rng(2).normal(size=9)
    names = [str(i) for i in range(9)]
    once, copied = (cluster_error(statistics.mean(np.tile(values, k)), names * k) for k in (1, 7))
    assert once is not None
    assert copied is not None
    assert copied.stderr == pytest.approx(once.stderr)


def test_one_cluster_has_no_error_and_clusters_are_one_per_item() -> None:
    assert cluster_error(statistics.mean(np.arange(4.0)), ["a"] * 4) is None
    with pytest.raises(ValueError, match="4 items, 3 clusters"):
        cluster_totals(np.arange(4.0), ["a", "b", "c"])


def test_pseudo_values_of_a_draw_have_its_value_as_mean_and_mean_squares_see_the_draws() -> None:
    world = World(n_clusters=5)
    rng = np.random.default_rng(3)
    draws = world.draws(rng, 3, world.shared(rng))
    y = pseudo_values(draws, world.clusters)
    assert y.shape == (3, 5)
    assert y.mean(axis=1) == pytest.approx([draw.value for draw in draws])
    squares = mean_squares(y)
    assert squares.draws > 0.1
    centred = y - y.mean(axis=1, keepdims=True)  # what influences alone would be
    assert mean_squares(centred).draws == pytest.approx(0, abs=1e-12)
    assert mean_squares(centred).clusters == pytest.approx(squares.clusters)


def test_mean_squares_are_those_of_a_two_way_analysis_of_variance() -> None:
    y = np.array([[1.0, 2.0, 6.0], [3.0, 4.0, 8.0]])  # rows differ by 2 everywhere: nothing is left
    squares = mean_squares(y)
    assert (squares.draws, squares.clusters, squares.rest) == pytest.approx((6.0, 14.0, 0.0))
    y[1, 2] += 3  # rows 3 and 6, columns 2, 3, 8.5, mean 4.5; rest ±.5, ±.5, ±1
    squares = mean_squares(y)
    assert (squares.draws, squares.clusters, squares.rest) == pytest.approx((13.5, 24.5, 1.5))
    assert crossed_error(y).stderr == pytest.approx(math.sqrt((13.5 + 24.5 - 1.5) / 6))
    draws, clusters = crossed_error(y).sources
    assert (draws.stderr, draws.df) == pytest.approx((math.sqrt(13.5 / 6), 1))
    assert (clusters.stderr, clusters.df) == pytest.approx((math.sqrt(23 / 6), 2))


def test_resampled_draws_and_clusters_vary_as_the_formula_says() -> None:
    rng = np.random.default_rng(6)
    y = rng.normal(size=(12, 1)) + rng.normal(size=(1, 40)) + 0.1 * rng.normal(size=(12, 40))
    resampled = bootstrap.crossed(y, 4000, rng)
    assert np.mean(resampled) == pytest.approx(y.mean(), abs=0.02)
    assert np.std(resampled) == pytest.approx(crossed_error(y).stderr * math.sqrt(11 / 12), rel=0.08)


def test_the_error_never_falls_below_what_one_source_shows() -> None:
    y = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]])  # draws and clusters equal, only the rest varies
    assert mean_squares(y).draws == pytest.approx(0)
    error = crossed_error(y + np.array([[0.0], [0.1]]))
    assert error.stderr == pytest.approx(math.sqrt(4 * 0.1**2 / 2 / 8))


def test_a_gap_between_two_sets_of_draws_counts_both_draws_and_pairs_clusters() -> None:
    rng = np.random.default_rng(4)
    hard = 5 * rng.normal(size=(1, 12))  # of the clusters, the same for A and B
    y_a = hard + rng.normal(size=(3, 1)) + 0.01 * rng.normal(size=(3, 12))
    y_b = hard + rng.normal(size=(4, 1)) + 0.01 * rng.normal(size=(4, 12))
    expected = np.var(y_a.mean(axis=1), ddof=1) / 3 + np.var(y_b.mean(axis=1), ddof=1) / 4
    assert gap_error(y_a, y_b).stderr == pytest.approx(math.sqrt(expected), rel=1e-3)
    with pytest.raises(ValueError, match="12 against 11"):
        gap_error(y_a, y_b[:, 1:])


@pytest.mark.slow
@pytest.mark.parametrize(("n_draws", "n_clusters"), [(3, 12), (5, 30)])
@pytest.mark.parametrize("skewed", [False, True])
def test_intervals_over_draws_and_clusters_cover_what_they_say(n_draws: int, n_clusters: int, skewed: bool) -> None:
    world = World(n_clusters=n_clusters, skewed=skewed)
    rng = np.random.default_rng(n_draws)
    covered, missed_by_items, repeats = 0, 0, 500
    for _ in range(repeats):
        draws = world.draws(rng, n_draws, world.shared(rng))
        y = pseudo_values(draws, world.clusters)
        low, high = crossed_error(y).interval(float(y.mean()))
        covered += low <= world.truth <= high
        first = draws[0]
        assert first.stderr is not None
        missed_by_items += abs(first.value - world.truth) > 2 * first.stderr
    assert 0.925 <= covered / repeats <= 0.99
    assert missed_by_items / repeats > 0.25  # one draw, items taken as independent


def test_a_gap_of_zero_is_seldom_called_one() -> None:
    world = World(n_clusters=12)
    rng = np.random.default_rng(5)
    found, repeats = 0, 500
    for _ in range(repeats):
        shared = world.shared(rng)
        y_a, y_b = (pseudo_values(world.draws(rng, 3, shared), world.clusters) for _ in range(2))
        found += gap_error(y_a, y_b).p_value(float(y_a.mean() - y_b.mean())) <= 0.05
    assert 0.02 <= found / repeats <= 0.085


def test_the_interval_of_paired_shares_covers_where_few_items_are_discordant() -> None:
    rng = np.random.default_rng(6)
    counts = [discordant(rng, 200, 0.02) for _ in range(4000)]
    covered = np.mean([low <= 0 <= high for low, high in (bonett_price(gained, lost, 200) for gained, lost in counts)])
    assert covered >= 0.94
    assert np.mean([mcnemar_mid_p(*pair) <= 0.05 for pair in counts]) <= 0.05
    low, high = bonett_price(0, 0, 50)
    assert low < 0 < high
    assert high - low == pytest.approx(2 * 1.959964 * math.sqrt(2 / 52 / 52))


def test_the_mid_p_test_halves_the_weight_of_what_was_seen() -> None:
    exact = stats.binomtest(2, 10, 0.5).pvalue
    assert mcnemar_mid_p(2, 8) == mcnemar_mid_p(8, 2) == pytest.approx(exact - math.comb(10, 2) / 2**10)
    for fewer, more in ((0, 1), (3, 30), (700, 800), (40_000, 60_000)):
        n, at_most = fewer + more, stats.binom.cdf(fewer, fewer + more, 0.5)
        assert mcnemar_mid_p(fewer, more) == pytest.approx(2 * at_most - stats.binom.pmf(fewer, n, 0.5), rel=1e-9)
    assert mcnemar_mid_p(0, 0) == 1
    assert mcnemar_mid_p(3, 3) == 1
    with pytest.raises(ValueError, match="6 and 5 discordant items of 10"):
        bonett_price(6, 5, 10)


def test_equivalence_is_the_interval_at_twice_alpha_within_the_margin() -> None:
    error = Error.of(0.1, df=7)
    low, high = error.interval(0.05, level=0.90)
    margin = max(abs(low), abs(high))
    assert error.equivalence_p(0.05, margin) == pytest.approx(0.05)
    assert error.equivalence_p(0.05, margin * 1.01) < 0.05 < error.equivalence_p(0.05, margin * 0.99)
    with pytest.raises(ValueError, match="positive number in the metric's unit, not -1"):
        error.equivalence_p(0.05, -1)


def test_the_detectable_difference_is_found_with_the_stated_power() -> None:
    error = Error.of(0.3, df=200)
    rng = np.random.default_rng(7)
    found = [error.p_value(value) <= 0.05 for value in rng.normal(error.detectable(), 0.3, 4000)]
    assert np.mean(found) == pytest.approx(0.80, abs=0.03)


def test_the_error_of_two_sources_is_their_sum() -> None:
    rng = np.random.default_rng(10)
    error = Error((Source(0.5, 3), Source(0.2, 11)))
    sample = 0.5 * rng.standard_t(3, 400_000) + 0.2 * rng.standard_t(11, 400_000)
    assert error.stderr == pytest.approx(math.sqrt(0.29))
    for share in (0.6, 0.975, 0.999):
        assert error.quantile(share) == pytest.approx(np.quantile(sample, share), rel=0.03, abs=0.005)
        assert error.probability(error.quantile(share)) == pytest.approx(share)
    assert error.p_value(2.0) == pytest.approx(np.mean(np.abs(sample) >= 2), rel=0.05)


@pytest.mark.parametrize("small", [0.3, 1e-3, 1e-9])
def test_a_source_that_is_small_changes_little(small: float) -> None:
    error, alone = Error((Source(small, 2), Source(1.0, 9))), Error.of(1.0, 9)
    for distance in (-8.0, -2.0, -0.1, 0.0, 3.0):
        assert error.probability(distance) == pytest.approx(
            alone.probability(distance), rel=small + 1e-9, abs=small / 5
        )
    assert Error((Source(0.0, 2), Source(1.0, 9))).interval(0.3) == alone.interval(0.3)


def test_three_equal_sources_do_not_depend_on_their_order() -> None:
    one, other = (Error(tuple(Source(1.0, df) for df in order)) for order in ((2, 4, 11), (11, 2, 4)))
    assert one.p_value(3.0) == pytest.approx(other.p_value(3.0), rel=1e-6)


def test_an_error_of_zero_decides_exactly() -> None:
    exact = Error.of(0.0, df=5)
    assert (exact.p_value(0.0), exact.p_value(1e-9)) == (1, 0)
    assert (exact.equivalence_p(0.1, 0.2), exact.equivalence_p(0.3, 0.2)) == (0, 1)


def test_adjusted_p_values_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == benjamini_hochberg([]) == []
    assert benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    values = [*np.random.default_rng(3).uniform(size=40), 0.2, 0.2, 1.0, 0.0]
    assert benjamini_hochberg(values) == pytest.approx(list(stats.false_discovery_control(values)))


def test_no_difference_anywhere_seldom_gives_a_finding_after_adjustment() -> None:
    rng = np.random.default_rng(8)
    families = rng.uniform(size=(4000, 10))
    assert np.mean([min(holm(family)) <= 0.05 for family in families]) == pytest.approx(0.05, abs=0.01)


def test_recovery_inverts_the_test_of_its_share() -> None:
    rng = np.random.default_rng(9)
    names = [str(i // 3) for i in range(120)]
    full = statistics.mean((rng.uniform(size=120) < 0.8).astype(float))
    kept = statistics.mean((rng.uniform(size=120) < 0.6).astype(float))
    found = recovery(kept, full, 0.25, names)
    assert found is not None
    assert found.lower is not None
    assert found.upper is not None
    assert found.value == pytest.approx((kept.value - 0.25) / (full.value - 0.25))
    assert found.lower < found.value < found.upper
    for share in (found.lower, found.upper):
        residual = statistics.Estimate(
            kept.value - 0.25 - share * (full.value - 0.25), kept.influence - share * full.influence
        )
        error = cluster_error(residual, names)
        assert error is not None
        assert error.p_value(residual.value) == pytest.approx(0.05)


def test_recovery_of_the_same_scores_is_one_and_of_chance_is_blank() -> None:
    right = np.array([1.0] * 70 + [0.0] * 30)
    names = [str(i) for i in range(100)]
    same = recovery(statistics.mean(right), statistics.mean(right), 0.5, names)
    assert same is not None
    assert (same.value, same.lower, same.upper) == pytest.approx((1, 1, 1))
    assert recovery(statistics.mean(right), statistics.mean(right), 0.66, names) is None


@pytest.mark.parametrize(
    ("value", "margin", "word"),
    [
        (0.5, None, Verdict.WORSE),
        (-0.5, None, Verdict.BETTER),
        (0.5, 0.8, Verdict.EQUIVALENT),
        (0.5, 0.6, Verdict.WORSE),
        (0.1, None, Verdict.UNDECIDED),
        (0.1, 0.2, Verdict.UNDECIDED),
        (0.1, 0.5, Verdict.EQUIVALENT),
    ],
)
def test_verdicts_of_a_metric_of_which_less_is_better(value: float, margin: float | None, word: Verdict) -> None:
    assert verdict(value, Error.of(0.1, 50), higher_is_better=False, margin=margin) is word


def test_a_verdict_follows_the_adjusted_p_and_needs_an_error() -> None:
    error = Error.of(0.1, 50)
    assert verdict(0.3, error, higher_is_better=True) is Verdict.BETTER
    assert verdict(0.3, error, higher_is_better=True, p_value=0.2) is Verdict.UNDECIDED
    assert verdict(0.3, None, higher_is_better=True) is Verdict.NOT_COMPARABLE
