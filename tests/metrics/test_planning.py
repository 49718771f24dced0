"""How many draws or clusters a difference takes."""

from __future__ import annotations

import numpy as np
import pytest

from quantbench.metrics.draws import gap_error
from quantbench.metrics.errors import Error, Source
from quantbench.metrics.planning import Observed

OBSERVED = Observed(draws=Source(0.02, 4), clusters=Source(0.01, 19), n_draws=3, n_clusters=20)


@pytest.mark.parametrize("difference", [0.05, 0.06, 0.08])
def test_the_number_of_draws_is_the_least_that_finds_the_difference(difference: float) -> None:
    def detectable(n: int) -> float:
        return Error((Source(0.02 * (3 / n) ** 0.5, 2 * (n - 1)), Source(0.01, 19))).detectable()

    needed = OBSERVED.draws_needed(difference)
    assert needed is not None
    assert detectable(needed) <= difference < detectable(needed - 1)
    assert OBSERVED.draws_needed(-difference) == needed


def test_the_number_of_clusters_is_the_least_that_finds_the_difference() -> None:
    one = Observed(draws=Source(0.001, 4), clusters=Source(0.01, 19), n_draws=3, n_clusters=20)

    def detectable(n: int) -> float:
        return Error((Source(0.001, 4), Source(0.01 * (20 / n) ** 0.5, n - 1))).detectable()

    needed = one.clusters_needed(0.02)
    assert needed is not None
    assert detectable(needed) <= 0.02 < detectable(needed - 1)


def test_more_of_both_finds_what_neither_finds_alone() -> None:
    def detectable(times: int) -> float:
        draws = Source(0.02 / times**0.5, 4 * (3 * times - 1) / 2)
        return Error((draws, Source(0.01 / times**0.5, 20 * times - 1))).detectable()

    assert OBSERVED.draws_needed(0.02) is OBSERVED.clusters_needed(0.02) is None
    times = OBSERVED.times_needed(0.02)
    assert times is not None
    assert detectable(times) <= 0.02 < detectable(times - 1)


def test_what_is_found_already_takes_no_more() -> None:
    assert OBSERVED.draws_needed(1.0) == 3
    assert OBSERVED.clusters_needed(1.0) == 20
    assert OBSERVED.times_needed(1.0) == 1


def test_no_number_of_draws_helps_below_what_the_clusters_leave_and_the_other_way_round() -> None:
    left_by_clusters = Error((Source(0.01, 19),)).detectable()
    assert OBSERVED.draws_needed(0.99 * left_by_clusters) is None
    assert OBSERVED.draws_needed(1.05 * left_by_clusters) is not None
    assert OBSERVED.clusters_needed(0.03) is None  # the draws alone leave 0.05


def test_a_difference_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 0, not 0"):
        OBSERVED.draws_needed(0.0)


def test_so_many_draws_find_a_gap_of_that_size_four_times_in_five() -> None:
    """Simulated: a study is planned from one of four draws a side, and made."""
    rng = np.random.default_rng(5)
    gap, n_clusters, spread, noise = 0.5, 25, 0.3, 0.5

    def study(n_draws: int) -> tuple[float, Error]:
        sides = [rng.normal(0, spread, (n_draws, 1)) + rng.normal(0, noise, (n_draws, n_clusters)) for _ in range(2)]
        return gap + float(sides[0].mean() - sides[1].mean()), gap_error(sides[0], sides[1])

    # what the two sources are, were they known: 2 spread^2 / D and 2 noise^2 / (D G)
    known = Observed(Source((2 * spread**2 / 4) ** 0.5, 6), Source((2 * noise**2 / 100) ** 0.5, 24), 4, n_clusters)
    needed = known.draws_needed(gap)
    assert needed is not None
    found = [error.p_value(value) <= 0.05 for value, error in (study(needed) for _ in range(600))]
    assert 0.75 < np.mean(found) < 0.92
