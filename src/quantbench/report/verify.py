"""The check that stored values and totals are those that the stored items and positions give."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from quantbench.core.errors import StoreError
from quantbench.metrics import metrics, positions
from quantbench.metrics.statistics import Estimate
from quantbench.store.manifest import Manifest
from quantbench.store.records import Score
from quantbench.store.store import Store

AGREEMENT = 1e-6
"""Relative difference at which a stored number no longer counts as the one computed from its items."""


def verify(store: Store, score: Score) -> None:
    """Raise StoreError if a value or a total of the score is not that of its items, which are read again."""
    items = store.load_items(score.run_id, score.task, score.protocol)
    metrics.check_items(items, score.n_items, f"the items of task {score.task!r} of run {score.run_id}")
    given = _given(store, score, items)
    for name, stored in store.load_totals(score).items():
        found = metrics.totals(name, items, given)
        if found is None:
            raise _wrong(score, f"its items do not give the stored {name}")
        if not math.isclose(found.value, stored.value, rel_tol=AGREEMENT, abs_tol=1e-12):
            raise _wrong(score, f"the stored {name} is {stored.value!r}, but its items give {found.value!r}")
        size = np.nanmax(np.abs(found.totals), initial=0.0)
        if not np.allclose(found.totals, stored.totals, rtol=AGREEMENT, atol=AGREEMENT * size, equal_nan=True):
            raise _wrong(score, f"the stored totals of {name} over clusters are not those that its items give")


def verify_sweep(store: Store, manifest: Manifest) -> int:
    """Verify all scores of a sweep's runs, full precision included; how many there are. Raises as `verify`."""
    ids = {run_id for cell in manifest.cells for run_id in (cell.run_id, cell.baseline_run_id) if run_id is not None}
    scores = [score for run_id in sorted(ids) for score in store.scores(run_id)]
    for score in scores:
        verify(store, score)
    return len(scores)


def _given(store: Store, score: Score, items: pd.DataFrame) -> Mapping[str, Estimate]:
    if not any(metric.name in positions.NAMES for metric in score.metrics):
        return {}
    return positions.estimates(store.load_positions(score.run_id, score.task, score.protocol), items["item"].tolist())


def _wrong(score: Score, what: str) -> StoreError:
    return StoreError(
        f"run {score.run_id}, task {score.task}: {what}. Delete that score in the run's folder scores/ and run the "
        "same command again"
    )
