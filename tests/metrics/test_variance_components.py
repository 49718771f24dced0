from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from quantbench.metrics.variance_components import Component, Observed
from quantbench.metrics.variance_components import components as of_metrics

TRUTH = {"calibration sets": 0.5, "draws": 0.2, "seeds": 0.1, "replicates": 0.05}
G, REPEATS = 12, 500


def simulated(seed: int, truth: dict[str, float]) -> list[Observed]:
    """4 sets of 3 draws, with 2 seeds and 2 replicates of each, REPEATS times; clusters vary by 4 and 0.36."""
    rng = np.random.default_rng(seed)

    def shift(source: str) -> Any:
        return rng.normal(0, truth.get(source, 0.0) ** 0.5, (REPEATS, 1))

    clusters, of_seed = rng.normal(0, 2, (REPEATS, G)), [shift("seeds") for _ in range(2)]
    runs = []
    for calibration in range(4):
        of_set = shift("calibration sets")
        for draw in range(3):
            of_draw = shift("draws")
            for number, replicate in itertools.product(range(2), repeat=2):
                value = 3 + of_set + of_draw + of_seed[number] + shift("replicates")
                y = value + clusters + rng.normal(0, 0.6, (REPEATS, G))
                runs.append(Observed(y, f"set {calibration}", draw, number, replicate))
    return runs


def components(runs: list[Observed]) -> list[Component]:
    """Of the one metric of the runs."""
    (found,) = of_metrics(runs)
    return found


def named(found: list[Component]) -> dict[str, Component]:
    return {one.source: one for one in found}


def test_known_components_are_found_again() -> None:
    repeats = [named(one) for one in of_metrics(simulated(0, TRUTH))]
    for source, variance in {**TRUTH, "items": (4 + 0.36) / G}.items():
        found = np.array([one[source].variance for one in repeats])
        assert abs(found.mean() - variance) < 4 * found.std(ddof=1) / len(found) ** 0.5


def test_intervals_cover_and_false_findings_are_rare() -> None:
    truth = {"calibration sets": 0.5, "draws": 0.2}
    repeats = [named(one) for one in of_metrics(simulated(1, truth))]
    for source, variance in truth.items():
        covered = [one[source].low <= variance <= one[source].high for one in repeats]  # type: ignore[operator]
        assert np.mean(covered) > 0.93
    for source in ("seeds", "replicates"):
        p = np.array([one[source].p for one in repeats])
        assert np.mean(p <= 0.05) < 0.07


def test_a_layout_worked_by_hand() -> None:
    # Values 1 and 3; rest 0: the variance between two draws is 2, all of it the draws'.
    first, second = Observed(np.array([[0.0, 2.0]]), "a", 0), Observed(np.array([[2.0, 4.0]]), "a", 1)
    found = named(components([first, second]))
    assert found.keys() == {"items", "draws"}
    assert found["items"].variance == pytest.approx(1.0)
    assert found["draws"].variance == pytest.approx(2.0)
    assert (found["draws"].df, found["draws"].levels) == (1, 2)
    assert found["draws"].sd == pytest.approx(2**0.5)


def test_what_does_not_vary_has_no_variance_at_all() -> None:
    y = np.array([[0.1, 0.7, 0.3]])
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
    found = named(components([Observed(rng.normal(size=(1, 5)), name, 0) for name in "abc"]))
    assert found.keys() == {"items", "calibration sets"}
    assert found["calibration sets"].note == "one draw of each: what draws vary by is in it"


def test_one_run_has_its_items_only_and_one_cluster_nothing() -> None:
    assert [one.source for one in components([Observed(np.array([[1.0, 2.0]]), "a", 0)])] == ["items"]
    assert components([Observed(np.array([[1.0]]), "a", draw) for draw in (0, 1)]) == []


def test_runs_over_other_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not \[\(1, 2\), \(1, 3\)\]"):
        components([Observed(np.zeros((1, 2))), Observed(np.zeros((1, 3)))])
    with pytest.raises(ValueError, match="same clusters"):
        components([])


def test_each_metric_has_its_own() -> None:
    several = [simulated(seed, TRUTH) for seed in (2, 3)]
    one, other = (
        [Observed(run.y[:1], run.calibration, run.draws, run.seeds, run.replicates) for run in runs] for runs in several
    )
    both = [
        Observed(np.concatenate([a.y, b.y]), a.calibration, a.draws, a.seeds, a.replicates)
        for a, b in zip(one, other, strict=True)
    ]
    for found, runs in zip(of_metrics(both), (one, other), strict=True):
        alone = components(runs)
        assert [one.source for one in found] == [one.source for one in alone]
        assert [one.variance for one in found] == pytest.approx([one.variance for one in alone])
        assert [one.high for one in found[1:]] == pytest.approx([one.high for one in alone[1:]])
