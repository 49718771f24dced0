"""The rows of one sweep in the tidy table: a block for each run and task, a row for each metric."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator

import pandas as pd

from quantbench.core.origin import MIXED, Origin
from quantbench.metrics import metrics
from quantbench.metrics.metric import Metric
from quantbench.report.columns import Block, ResultRow
from quantbench.report.comparison_columns import FULL_PRECISION
from quantbench.report.comparisons import compared
from quantbench.report.differences import Difference, differences, intervals
from quantbench.report.pairs import apart
from quantbench.report.run_columns import run_columns, score_columns, task_columns
from quantbench.report.scored import Scored, SweepScores
from quantbench.report.sweep_runs import SweepRun, one_line
from quantbench.store.records import Score

log = logging.getLogger("quantbench")

Word = tuple[float | None, float | None, str]
"""p, p_holm and verdict."""


class SweepRows:
    """The rows of one sweep."""

    def __init__(self, scores: SweepScores) -> None:
        self._scores = scores
        self._words = _words(compared([scores], kinds=[FULL_PRECISION]))
        self._own: dict[tuple[object, ...], list[Scored]] = defaultdict(list)
        self._example: dict[str, Scored] = {}
        self._full = {run.run_id: run for run in scores.runs if run.full_precision}
        redescribed: set[str] = set()
        for run in scores.runs:
            for task, protocol in run.tasks:
                scored = scores.of(run, task, protocol)
                if scored is not None:
                    redescribed |= _redescribed(run, scored.score)
                    if len(scored.metrics) >= len(self._example.setdefault(task, scored).metrics):
                        self._example[task] = scored
                    if run.in_distribution(task):
                        self._own[run.row_key(), task, protocol].append(scored)
        if redescribed:
            log.warning(
                "sweep %s: described otherwise now than when its results were made: %s. Relations follow from the "
                "description in the sweep's manifest",
                *(scores.manifest.name, ", ".join(sorted(redescribed))),
            )

    def blocks(self) -> Iterator[Block]:
        """One per run and task; of a run without a score, with a row for each metric that the task has elsewhere."""
        for run in self._scores.runs:
            of_run = run_columns(run)
            for task, protocol in run.tasks:
                common = of_run | task_columns(run, task, protocol)
                scored = self._scores.of(run, task, protocol)
                if scored is None:
                    yield self._without_score(run, task, protocol, common)
                else:
                    yield Block(common | score_columns(run, scored), self._with_score(run, scored))

    def _without_score(self, run: SweepRun, task: str, protocol: str | None, common: ResultRow) -> Block:
        told: ResultRow = {"status": "missing" if run.status == "done" else run.status}
        if run.status == "done" and run.run_id is not None and protocol is not None:
            damage = self._scores.damaged.get((run.run_id, task, protocol))
            failure = self._scores.store.load_failure(run.run_id, task, protocol)
            if damage is not None:
                told = {"status": "damaged", "error": damage}
            elif failure is not None:
                told = {"status": "failed", "error": one_line(failure.error)}
        example = self._example.get(task)
        known = () if example is None else example.metrics
        rows = [_metric_columns(one) for one in known if not (run.full_precision and metrics.is_relative(one.name))]
        return Block(common | told, rows if example is not None else [{}])

    def _with_score(self, run: SweepRun, scored: Scored) -> list[ResultRow]:
        task, protocol = scored.score.task, scored.score.protocol
        ends = intervals(scored)
        error, changes = (None, {}) if run.full_precision else self._from_full_precision(run, scored)
        gaps = self._transfer_gaps(run, scored)
        rows = []
        for metric in scored.metrics:
            name = metric.name
            row = _metric_columns(metric) | {"value": metric.value, "stderr": metric.stderr, "n": metric.n}
            if name in ends:
                row["value_low"], row["value_high"] = ends[name]
            if not run.full_precision and not metrics.is_relative(name):
                if error is not None:
                    row["error"] = error
                if name in changes:
                    found = changes[name]
                    row["difference"], row["difference_stderr"] = found.difference, found.stderr
                    row["difference_low"], row["difference_high"] = found.low, found.high
                if word := self._words.get((run.run_id or "", run.scale, task, protocol, name)):
                    row["p"], row["p_holm"], row["verdict"] = word
            if name in gaps:
                found = gaps[name]
                row["transfer_gap"], row["transfer_gap_stderr"] = found.difference, found.stderr
                row["transfer_gap_low"], row["transfer_gap_high"] = found.low, found.high
            rows.append(row)
        return rows

    def _from_full_precision(self, run: SweepRun, scored: Scored) -> tuple[str | None, dict[str, Difference]]:
        """Why there are no differences, or the differences."""
        if run.baseline is None:
            return "no difference: the manifest names no full-precision run for this cell", {}
        task, protocol = scored.score.task, scored.score.protocol
        full = self._scores.full_precision(run, task, protocol)
        if full is None:
            told = self._scores.elsewhere(run.baseline, task)
            return f"no difference: no score of full precision under {protocol}{told}", {}
        if hindrance := apart([(run, scored), (self._full.get(run.baseline, run), full)]):
            return f"no difference from full precision: {hindrance}", {}
        return None, differences(scored, full)

    def _transfer_gaps(self, run: SweepRun, scored: Scored) -> dict[str, Difference]:
        """Against the same recipe calibrated on the test distribution, where the sweep has exactly one such run."""
        task, protocol = scored.score.task, scored.score.protocol
        if not (run.in_distribution(task) is False or run.relation(task) == MIXED):
            return {}
        same = self._own.get((run.row_key(), task, protocol), [])
        if len(same) != 1 or apart([(run, scored), (run, same[0])]):
            return {}
        return differences(scored, same[0])


def _words(frame: pd.DataFrame) -> dict[tuple[str, str, str, str, str], Word]:
    """What comparisons with full precision say, by run, scale, task, protocol and metric."""
    names = ("run_ids", "scale", "task", "protocol", "metric", "p", "p_holm", "verdict")
    plain = [frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in names]
    return {
        (run_id, scale, task, protocol, metric): (p, p_holm, word)
        for run_ids, scale, task, protocol, metric, p, p_holm, word in zip(*plain, strict=True)
        for run_id in run_ids.split()
    }


def _metric_columns(metric: Metric) -> ResultRow:
    return {
        "metric": metric.name,
        "unit": metrics.unit(metric.name),
        "higher_is_better": metric.higher_is_better,
    }


def _redescribed(run: SweepRun, score: Score) -> set[str]:
    """The data sets of a run whose description, as far as it decides relations, is not that of its stored results."""
    calibrations = [] if run.record is None else zip(run.record.origins, run.calib_origins, strict=False)
    pairs = [(score.origin, run.task_origins[score.task]), *calibrations]
    return {now.name for before, now in pairs if _description(before) != _description(now)}


def _description(origin: Origin) -> tuple[object, ...]:
    """Without the path: a file may have been moved."""
    return (origin.name, origin.family, origin.language, frozenset(origin.relatives))
