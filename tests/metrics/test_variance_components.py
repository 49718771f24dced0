from __future__ import annotations

import itertools

import numpy as np
import pytest

from quantbench.metrics.variance_components import Component, Observed, components

TRUTH = {"calibration sets": 0.5, "draws": 0.2, "seeds": 0.1, "replicates": 0.05}
G = 12


def simulated(rng: np.random.Generator, truth: dict[str, float], sets: int = 4, draws: int = 3) -> list[Observed]:
    """Runs of every combination of two seeds and two replicates; clusters vary by 2, a run's by 0.6 more."""

    def shift(source: str) -> float:
        return float(rng.normal(0, truth.get(source, 0.0) ** 0.5))

    clusters = rng.normal(0, 2, G)
    of_seed = [shift("seeds") for _ in range(2)]
    runs = []
    for calibration in range(sets):
        of_set = shift("calibration sets")
        for draw in range(draws):
            of_draw = shift("draws")
            for seed, replicate in itertools.product(range(2), repeat=2):
                value = 3 + of_set + of_draw + of_seed[seed] + shift("replicates")
                y = value + clusters + rng.normal(0, 0.6, G)
                runs.append(Observed(y, f"set {calibration}", draw, seed, replicate))
    return runs


def named(found: list[Component]) -> dict[str, Component]:
    return {one.source: one for one in found}


def test_known_components_are_found_again() -> None:
    rng = np.random.default_rng(0)
    repeats = [named(components(simulated(rng, TRUTH))) for _ in range(100)]
    for source, variance in TRUTH.items():
        found = np.array([one[source].variance for one in repeats])
        error = found.std(ddof=1) / len(found) ** 0.5
        assert abs(found.mean() - variance) < 4 * error
    of_items = np.array([one["items"].variance for one in repeats])
    assert abs(of_items.mean() - (4 + 0.36) / G) < 4 * of_items.std(ddof=1) / len(repeats) ** 0.5


def test_intervals_cover_and_false_findings_are_rare() -> None:
    rng = np.random.default_rng(1)
    truth = {"calibration sets": 0.5, "draws": 0.2}
    repeats = [named(components(simulated(rng, truth))) for _ in range(100)]
    for source, variance in truth.items():
        covered = [one[source].low <= variance <= one[source].high for one in repeats]  # type: ignore[operator]
        assert np.mean(covered) > 0.88
    for source in ("seeds", "replicates"):
        p = [one[source].p for one in repeats]
        assert np.mean(np.array(p) <= 0.05) < 0.12


def test_a_layout_worked_by_hand() -> None:
    # Values 1 and 3; rest 0: the variance between two draws is 2, all of it the draws'.
    first, second = Observed(np.array([0.0, 2.0]), "a", 0), Observed(np.array([2.0, 4.0]), "a", 1)
    found = named(components([first, second]))
    assert found.keys() == {"items", "draws"}
    assert found["items"].variance == pytest.approx(1.0)
    assert found["draws"].variance == pytest.approx(2.0)
    assert (found["draws"].df, found["draws"].levels) == (1, 2)
    assert found["draws"].sd == pytest.approx(2**0.5)


def test_what_does_not_vary_has_no_variance_at_all() -> None:
    y = np.array([0.1, 0.7, 0.3])
    runs = [
        Observed(y, calibration, draw, 0, replicate)
        for calibration in "abc"
        for draw in range(3)
        for replicate in (0, 1)
    ]
    found = named(components(runs))
    for source in ("draws", "replicates", "calibration sets"):
        assert (found[source].variance, found[source].low, found[source].high, found[source].p) == (0, 0, 0, None)
    assert "seeds" not in found


def test_sets_of_one_draw_each_say_that_draws_are_in_it() -> None:
    rng = np.random.default_rng(2)
    found = named(components([Observed(rng.normal(size=5), name, 0) for name in "abc"]))
    assert found.keys() == {"items", "calibration sets"}
    assert found["calibration sets"].note == "one draw of each: what draws vary by is in it"


def test_one_run_has_its_items_only_and_one_cluster_nothing() -> None:
    assert [one.source for one in components([Observed(np.array([1.0, 2.0]), "a", 0)])] == ["items"]
    assert components([Observed(np.array([1.0]), "a", draw) for draw in (0, 1)]) == []


def test_runs_over_other_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not over \[2, 3\]"):
        components([Observed(np.zeros(2)), Observed(np.zeros(3))])
    with pytest.raises(ValueError, match="same clusters"):
        components([])
