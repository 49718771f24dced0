"""How often the words of comparisons.csv are wrong, and its intervals miss, where the truth is known: by simulation.

Three recipes calibrated on two sets, three draws each, scored on two texts of 12 clusters with an intra-cluster
correlation of 0.4.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from made_up_arms import Lab, text
from quantbench.report.comparisons import compared
from sampled import World

RECIPES, SETS, N_DRAWS = ("awq", "gptq", "spqr"), ("news", "wiki"), 3


def sweep(rng: np.random.Generator, world: World, loss: float) -> Lab:
    """Recipes are equally good everywhere, and lose `loss` on the text that they are not calibrated on."""
    lab = Lab()
    for task in SETS:
        shared = world.shared(rng)
        for recipe in RECIPES:
            for calib in SETS:
                for draw, estimate in enumerate(world.draws(rng, N_DRAWS, shared)):
                    values = estimate.value + estimate.influence + loss * (calib != task)
                    lab.add(recipe, calib, draw, task, text(values, world.per_cluster))
    return lab


def repeated(loss: float, margin: float | None, repeats: int, skewed: bool) -> list[pd.DataFrame]:
    """Comparisons of as many sweeps. Runs are other in each, their settings and cells are not."""
    rng, world = np.random.default_rng([repeats, skewed]), World(n_clusters=12, skewed=skewed)
    margins = None if margin is None else {"kl": margin}
    return [compared([sweep(rng, world, loss).sweep], margins) for _ in range(repeats)]


def at_most_five_percent(found: list[bool]) -> bool:
    return float(np.mean(found)) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(found))


@pytest.mark.slow
@pytest.mark.parametrize("skewed", [False, True])
def test_no_family_has_a_false_finding_more_often_than_it_says(skewed: bool) -> None:
    frames = repeated(loss=0.0, margin=None, repeats=100, skewed=skewed)
    for kind, size in (("recipe", 12), ("transfer gap", 6)):
        families = [frame[frame["kind"] == kind] for frame in frames]
        assert {len(family) for family in families} == {size}
        assert at_most_five_percent([bool(family["verdict"].isin(["better", "worse"]).any()) for family in families])
        p_values = np.concatenate([family["p"].to_numpy(float) for family in families])
        assert 0.01 <= np.mean(p_values <= 0.05) <= 0.07  # before adjustment; with few draws tests are cautious


@pytest.mark.slow
def test_intervals_cover_true_gaps_and_equivalence_is_seldom_wrong() -> None:
    frames = repeated(loss=0.5, margin=0.5, repeats=100, skewed=False)
    gaps = [frame[frame["kind"] == "transfer gap"] for frame in frames]
    covered = [((gap["low"] <= 0.5) & (gap["high"] >= 0.5)).mean() for gap in gaps]
    assert 0.93 <= np.mean(covered) <= 0.99
    assert at_most_five_percent([bool((gap["verdict"] == "equivalent").any()) for gap in gaps])
    assert not any((gap["verdict"] == "better").any() for gap in gaps)


def test_a_clear_loss_is_found_and_named() -> None:
    (frame,) = repeated(loss=5.0, margin=0.5, repeats=1, skewed=False)
    gaps = frame[frame["kind"] == "transfer gap"]
    assert set(gaps["verdict"]) == {"worse"}
    assert set(frame[frame["kind"] == "recipe"]["verdict"]) == {"undecided"}
