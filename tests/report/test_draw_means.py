"""Means over calibration draws, and their errors over draws and clusters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from quantbench.metrics.draws import crossed_error
from quantbench.metrics.totals import Totals
from quantbench.report.collate import collated
from quantbench.report.draw_means import draw_means, totals_of
from quantbench.report.evidence import DrawMean
from quantbench.report.scored import SweepScores
from stored_sweep import build

RUNS = frozenset({"wiki-gptq", "news-gptq"})
KEY = ("wiki", "a" * 64, "kl", RUNS)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepScores, pd.DataFrame]:
    """The stored sweep, its two runs of gptq taken for two draws of one calibration set."""
    scores = SweepScores(*build(tmp_path_factory.mktemp("stored")))
    frame = collated([scores])
    frame.loc[frame.run_id == "news-gptq", "calib"] = "wiki"
    frame.loc[frame.run_id == "news-gptq", "draw"] = 1
    return scores, frame


def made_up(*draws: Totals | None) -> Mapping[str, Totals | None]:
    return dict(zip(sorted(RUNS), draws, strict=True))


def mean_of(frame: pd.DataFrame, draws: Mapping[str, Totals | None], metric: str = "kl") -> DrawMean:
    def load(run_id: str, task: str, protocol: str) -> Mapping[str, Totals] | None:
        found = draws[run_id]
        return None if found is None else {metric: found}

    return draw_means(frame, [metric], load)["wiki", "a" * 64, metric, RUNS]


def test_the_mean_has_the_crossed_error_of_its_draws(sweep: tuple[SweepScores, pd.DataFrame]) -> None:
    scores, frame = sweep
    found = draw_means(frame, ["kl", "perplexity"], totals_of(scores))
    totals = [scores.store.load_totals(score) for run in sorted(RUNS) for score in scores.store.scores(run)]
    own = [one["kl"] for one, score in zip(totals, _scores(scores), strict=True) if score == "wiki"]
    assert len(own) == 2
    assert found[KEY].value == pytest.approx(np.mean([one.value for one in own]))
    assert found[KEY].stderr == pytest.approx(crossed_error(np.stack([one.pseudo_values() for one in own])).stderr)
    assert {key[3] for key in found} == {RUNS}


def _scores(scores: SweepScores) -> list[str]:
    return [score.task for run in sorted(RUNS) for score in scores.store.scores(run)]


def test_perplexities_are_averaged_on_their_logarithm(sweep: tuple[SweepScores, pd.DataFrame]) -> None:
    y = [Totals(value, np.array([0.2, -0.1, -0.1]), 6, log_scale=True) for value in (4.0, 9.0)]
    found = mean_of(sweep[1], made_up(*y), "perplexity")
    error = crossed_error(np.stack([one.pseudo_values() for one in y])).stderr
    assert found.value == pytest.approx(6.0)
    assert found.stderr == pytest.approx(6.0 * error)


def test_no_error_is_made_up(sweep: tuple[SweepScores, pd.DataFrame]) -> None:
    _, frame = sweep
    three = Totals(0.2, np.array([0.1, 0.0, -0.1]), 6)
    for other in (Totals(0.4, np.array([0.1, -0.1]), 6), Totals(0.4, np.full(3, np.nan), 6)):
        found = mean_of(frame, made_up(three, other))
        assert found.value == pytest.approx(0.3)
        assert found.stderr is None
    one = Totals(0.2, np.array([0.0]), 6)
    assert mean_of(frame, made_up(one, one)).stderr is None
    values = frame[(frame.metric == "kl") & (frame.task == "wiki") & frame.run_id.isin(RUNS)].value
    found = mean_of(frame, made_up(three, None))
    assert found.value == pytest.approx(values.mean())
    assert found.stderr is None
