"""From the store to one long tidy table: results.csv, the same to the byte for the same scores."""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from quantbench.core import files
from quantbench.core.errors import StoreError
from quantbench.core.origin import IN_DISTRIBUTION, MIXED
from quantbench.metrics import metrics
from quantbench.metrics.metric import Metric
from quantbench.report.columns import RESULT_COLUMNS, result_frame
from quantbench.report.subjects import Subject, settings, subjects
from quantbench.store.manifest import Manifest
from quantbench.store.records import Score
from quantbench.store.store import Store

FLOAT_FORMAT = "%.10g"

AGREEMENT = 1e-6
"""Relative difference at which a stored value no longer counts as the one computed from its items."""


def collate(store: Store, manifests: Sequence[Manifest]) -> pd.DataFrame:
    """The results of sweeps, as a frame of RESULT_COLUMNS, sorted: one row per subject, task and metric.

    A cell that failed or has not run has its rows, too, with an empty value. Differences are paired over the items of
    two runs, and only taken between scores of equal task and protocol; where there is no such full-precision score, the
    column `error` says so. Raises StoreError if a stored file is damaged, a value is not that of its items, or two
    scores of one protocol are over different items.
    """
    rows = [row for manifest in manifests for row in _Sweep(store, manifest).rows()]
    return result_frame(sorted(rows, key=_order))


def write(store: Store, name: str, frame: pd.DataFrame) -> None:
    """Write results.parquet and results.csv into the folder of the sweep, atomically."""
    folder = store.sweep_dir(name)
    files.write_parquet(folder / "results.parquet", frame)
    files.write_text(folder / "results.csv", csv_text(frame))


def csv_text(frame: pd.DataFrame) -> str:
    """The frame as CSV: no index, numbers to ten digits, empty fields for what is not known."""
    floats = [name for name, column in RESULT_COLUMNS.items() if column.dtype == "Float64"]
    plain = {name: frame[name].to_numpy(np.float64, na_value=np.nan) for name in floats}
    return frame.assign(**plain).to_csv(index=False, float_format=FLOAT_FORMAT, lineterminator="\n")


class _Sweep:
    """The rows of one sweep. Items are read once per score."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store = store
        self.items = functools.cache(store.load_items)
        self.subjects = subjects(store, manifest)
        self.done: dict[tuple[int, str, str | None], Score] = {}
        self.own: dict[tuple[Any, str, str], list[Score]] = defaultdict(list)
        for index, subject in enumerate(self.subjects):
            for task, protocol in subject.tasks:
                if subject.status == "done" and subject.run_id is not None and protocol is not None:
                    score = store.load_score(subject.run_id, task, protocol)
                    if score is not None:
                        self.done[index, task, protocol] = score
                        if subject.in_distribution.get(task):
                            self.own[subject.row_key(), task, protocol].append(score)
        self.by_task: dict[str, Score] = {}
        for score in sorted(self.done.values(), key=lambda s: len(s.metrics)):
            self.by_task[score.task] = score

    def rows(self) -> Iterator[dict[str, Any]]:
        for index, subject in enumerate(self.subjects):
            common = _subject_columns(subject)
            for task, protocol in subject.tasks:
                score = self.done.get((index, task, protocol))
                if score is None:
                    yield from (common | row for row in self._empty(subject, task, protocol))
                else:
                    yield from (common | self._filled(subject, score, metric) for metric in score.metrics)

    def _empty(self, subject: Subject, task: str, protocol: str | None) -> Iterator[dict[str, Any]]:
        """One row per metric that the task has elsewhere in the sweep."""
        example = self.by_task.get(task)
        row: dict[str, Any] = {"task": task, "protocol": protocol, "in_distribution": subject.in_distribution.get(task)}
        row["relation"] = subject.relation.get(task)
        if subject.status == "done":
            row["status"] = "missing"
        if example is None:
            yield row
            return
        for metric in example.metrics:
            if not (subject.full_precision and metrics.is_relative(metric.name)):
                described = _metric_columns(metric) | {"value": None, "stderr": None, "n": None}
                yield row | _distribution_columns(example) | described

    def _filled(self, subject: Subject, score: Score, metric: Metric) -> dict[str, Any]:
        self._check_value(score, metric)
        own = None if subject.data_free else subject.in_distribution.get(score.task, score.in_distribution)
        row = _distribution_columns(score) | _metric_columns(metric)
        row |= {"task": score.task, "protocol": score.protocol, "in_distribution": own, "n_tokens": score.n_tokens}
        row["relation"] = None if subject.data_free else _relation(subject, score)
        row["overlap_13gram"] = None if score.overlap is None else float(score.overlap["share"])
        if not subject.full_precision and not metrics.is_relative(metric.name):
            row |= self._versus_full_precision(subject, score, metric)
        if own is False or row["relation"] == MIXED:
            row |= self._versus_own(subject, score, metric)
        return row

    def _check_value(self, score: Score, metric: Metric) -> None:
        found = metrics.estimate(metric.name, self._items_of(score))
        if found is not None and not math.isclose(found.value, metric.value, rel_tol=AGREEMENT, abs_tol=1e-12):
            raise StoreError(
                f"run {score.run_id}, task {score.task}: the stored {metric.name} is {metric.value!r}, but its items "
                f"give {found.value!r}. Delete that score in the run's folder scores/ and run the same command again"
            )

    def _items_of(self, score: Score) -> pd.DataFrame:
        return self.items(score.run_id, score.task, score.protocol)

    def _versus_full_precision(self, subject: Subject, score: Score, metric: Metric) -> dict[str, Any]:
        if subject.baseline is None:
            return {"error": "no difference: the manifest names no full-precision run for this cell"}
        other = self.store.load_score(subject.baseline, score.task, score.protocol)
        if other is not None:
            return self._difference(score, other, metric, "difference")
        others = [s.protocol for s in self.store.scores(subject.baseline) if s.task == score.task]
        scored = f"only under {', '.join(others)}" if others else "not at all"
        return {"error": f"no difference: full precision is scored on this task {scored}, not under {score.protocol}"}

    def _versus_own(self, subject: Subject, score: Score, metric: Metric) -> dict[str, Any]:
        """Against the same recipe calibrated on the test distribution, where the sweep has exactly one such run."""
        same = self.own.get((subject.row_key(), score.task, score.protocol), [])
        return self._difference(score, same[0], metric, "own_difference") if len(same) == 1 else {}

    def _difference(self, score: Score, other: Score, metric: Metric, name: str) -> dict[str, Any]:
        try:
            found = metrics.paired(metric.name, self._items_of(score), self._items_of(other))
        except ValueError as error:
            raise StoreError(
                f"runs {score.run_id} and {other.run_id}, task {score.task}, one protocol {score.protocol}: {error}"
            ) from error
        if found is None:
            return {}
        errors = {f"{name}_stderr": found.stderr, f"{name}_low": found.lower, f"{name}_high": found.upper}
        return {name: found.difference} | errors


def _subject_columns(subject: Subject) -> dict[str, Any]:
    row = {name: getattr(subject, name) for name in RESULT_COLUMNS if name in Subject.__dataclass_fields__}
    del row["in_distribution"], row["relation"]
    row |= {name: subject.identity(name) for name in ("seed", "draw", "replicate")}
    record = subject.record
    if record is not None:
        calibration = record.calibration or {}
        row["settings"] = settings(record.config.get("quantizer", {})) or None
        row["effective_bits"] = record.effective_bits
        row["kv_bits"] = record.kv_bits
        row["calib_tokens"] = calibration.get("n_tokens")
        row["fallbacks"] = " ".join(f"{name}={count}" for name, count in sorted(record.fallbacks.items())) or None
    return row


def _relation(subject: Subject, score: Score) -> str | None:
    """As the sweep knows it, else as it was when the score was made; what is stored without it is known in part."""
    known = subject.relation.get(score.task) or score.relation
    if known is None and (score.in_distribution or subject.in_distribution.get(score.task)):
        return IN_DISTRIBUTION
    return known


def _distribution_columns(score: Score) -> dict[str, Any]:
    found = score.distribution
    return {"distribution": found.name, "family": found.family, "domain": found.domain, "language": found.language}


def _metric_columns(metric: Metric) -> dict[str, Any]:
    row = {name: getattr(metric, name) for name in ("value", "stderr", "n", "higher_is_better")}
    return row | {"metric": metric.name, "unit": metrics.unit(metric.name)}


def _order(row: dict[str, Any]) -> list[Any]:
    """Full precision first, then data-free recipes, then by name; numbers in names count as numbers."""
    names = [row.get(name) for name in ("calib", "calib_variant", "seed", "draw", "replicate", "run_id", "task")]
    known = list(metrics.METRICS)
    metric = row.get("metric") or ""
    position = known.index(metric) if metric in known else len(known)
    first = [_natural(row[name]) for name in ("sweep", "model", "scale")]
    middle = [not row["full_precision"], *(_natural(row[name]) for name in ("quantizer", "variant"))]
    last = [_natural(name) for name in [*names, row.get("protocol")]]
    return [*first, *middle, not row["data_free"], *last, position, metric]


def _natural(value: str | int | None) -> list[str | int]:
    parts = re.split(r"(\d+)", "" if value is None else str(value))
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]
