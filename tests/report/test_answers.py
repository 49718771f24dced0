"""Answers that quantization changes: agreement, flips and recovery among the results of a sweep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from made_up_arms import Lab, answers
from quantbench.metrics import statistics
from quantbench.metrics.clusters import cluster_error
from quantbench.metrics.recovery import recovery
from quantbench.report.collate import collated

CHANGES = ["agreement", "flips_wrong", "flips_right"]


def sweep(ours: Any, full: Any, **items: Any) -> Lab:
    lab = Lab()
    lab.add("none", None, 0, "nli", answers(full, **items), names=("accuracy",))
    lab.add("rtn", None, 0, "nli", answers(ours, **items), names=("accuracy",))
    return lab


def results(lab: Lab) -> pd.DataFrame:
    frame = collated([lab.sweep])
    return frame[frame["run_id"] == "rtn"].set_index("metric")


@pytest.mark.parametrize("per_passage", [1, 4])
def test_answers_are_compared_with_those_of_full_precision(per_passage: int) -> None:
    rng = np.random.default_rng(per_passage)
    full = rng.uniform(size=80) < 0.8
    ours = full ^ (rng.uniform(size=80) < 0.2)
    items = answers(ours, per_passage)
    frame = results(sweep(ours, full, per_passage=per_passage, n_labels=4))
    assert frame.loc[CHANGES, "value"].tolist() == [np.mean(ours == full), np.mean(full & ~ours), np.mean(ours & ~full)]
    error = cluster_error(statistics.mean((ours == full).astype(float)), items["cluster"].tolist())
    assert error is not None
    assert frame.loc["agreement", "stderr"] == pytest.approx(error.stderr)
    mine, theirs = (statistics.mean(one.astype(float)) for one in (ours, full))
    kept = recovery(mine, theirs, 0.25, items["cluster"].tolist())
    assert kept is not None
    shown = [frame.loc["recovery", name] for name in ("value", "value_low", "value_high")]
    assert shown == pytest.approx([100 * kept.value, 100 * (kept.lower or 0), 100 * (kept.upper or 0)])
    assert frame.loc["recovery", "unit"] == "%"
    assert frame.loc[[*CHANGES, "recovery"], "difference"].isna().all()
    assert frame.loc["accuracy", "difference"] == pytest.approx(np.mean(ours) - np.mean(full))


def test_recovery_is_blank_where_chance_is_not_known_or_not_exceeded() -> None:
    half = [1, 0] * 20
    assert "recovery" not in results(sweep(half, half)).index
    assert "recovery" not in results(sweep(half, half, n_labels=2)).index
    assert results(sweep(half, half, n_labels=4)).loc["recovery", "value"] == 100


@pytest.mark.parametrize("items", ["missing", "damaged"])
def test_what_needs_items_is_left_out_without_them(items: str, caplog: pytest.LogCaptureFixture) -> None:
    lab = sweep([1, 0] * 20, [1, 1] * 20, per_passage=4)
    lab.items = items
    frame = results(lab)
    assert frame.index.tolist() == ["accuracy"]
    assert frame.loc["accuracy", "difference"] == -0.5
    told = "nli: agreement, flips and recovery are left out: cannot read"
    assert (told in caplog.text) == (items == "damaged")
