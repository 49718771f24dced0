"""Means over calibration draws, with their errors over draws and clusters of test items."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from quantbench.metrics.draws import crossed_error
from quantbench.metrics.totals import Totals
from quantbench.report.columns import ResultRow, result_rows
from quantbench.report.evidence import DrawKey, DrawMean
from quantbench.report.lines import lines_of
from quantbench.report.scored import SweepScores
from quantbench.report.studies import studies_of

LoadTotals = Callable[[str, str, str], Mapping[str, Totals] | None]
"""From run id, task and protocol to the totals of a score by metric; None if there is no such score."""


def totals_of(scores: SweepScores) -> LoadTotals:
    """Totals of scores that a sweep has read."""
    runs = {run.run_id: run for run in scores.runs}

    def load(run_id: str, task: str, protocol: str) -> Mapping[str, Totals] | None:
        found = scores.of(runs[run_id], task, protocol) if run_id in runs else None
        return None if found is None else found.totals

    return load


def draw_means(frame: pd.DataFrame, metrics: Iterable[str], load: LoadTotals) -> dict[DrawKey, DrawMean]:
    """The mean of each metric over the draws of each line of tables that has several, in the metric's unit.

    frame: the results of `collate`. Perplexities are averaged on their logarithm. There is no error where draws do not
    have as many clusters, or only one.
    """
    found: dict[DrawKey, DrawMean] = {}
    for metric in metrics:
        rows = result_rows(frame[(frame["metric"] == metric).fillna(False)])
        for study in studies_of(rows):
            for line in lines_of(study.rows):
                for own in line.rows.values():
                    have = [row for row in own if row["value"] is not None]
                    if len(have) > 1:
                        found[_key(have)] = _mean(have, load)
    return found


def _key(rows: list[ResultRow]) -> DrawKey:
    runs = frozenset(row["run_id"] or "" for row in rows)
    return rows[0]["task"], rows[0]["protocol"], rows[0]["metric"] or "", runs


def _mean(rows: list[ResultRow], load: LoadTotals) -> DrawMean:
    draws = [_totals(row, load) for row in rows]
    known = [one for one in draws if one is not None]
    if len(known) < len(rows):
        return DrawMean(math.fsum(row["value"] or 0.0 for row in rows) / len(rows), None)
    log_scale = known[0].log_scale
    mean = math.fsum(one.scale_value for one in known) / len(known)
    value = math.exp(mean) if log_scale else mean
    values = [one.pseudo_values() for one in known]
    if len({len(one) for one in values}) > 1 or len(values[0]) < 2 or not np.isfinite(values).all():
        return DrawMean(value, None)
    stderr = crossed_error(np.stack(values)).stderr
    return DrawMean(value, stderr * value if log_scale else stderr)


def _totals(row: ResultRow, load: LoadTotals) -> Totals | None:
    found = load(row["run_id"] or "", row["task"], row["protocol"] or "")
    return None if found is None else found.get(row["metric"] or "")
