"""The rows of one sweep in the tidy table: stored values, and paired differences over clusters of items."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from quantbench.core.errors import StoreError
from quantbench.core.origin import MIXED, Origin
from quantbench.metrics import metrics
from quantbench.metrics.comparison import Comparison, compare
from quantbench.metrics.metric import Metric
from quantbench.metrics.totals import Totals
from quantbench.report.columns import ResultRow
from quantbench.report.settings import settings
from quantbench.report.sweep_runs import SweepRun, one_line, sweep_runs
from quantbench.store.manifest import Manifest
from quantbench.store.records import Score
from quantbench.store.store import Store

log = logging.getLogger("quantbench")


class SweepRows:
    """The rows of one sweep. Totals are read once per score, and items never."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self._store = store
        self._totals: dict[tuple[str, str, str], dict[str, Totals]] = {}
        self._runs = sweep_runs(store, manifest)
        self._scores: dict[tuple[int, str, str | None], Score] = {}
        self._in_distribution: dict[tuple[object, ...], list[Score]] = defaultdict(list)
        redescribed: set[str] = set()
        for index, run in enumerate(self._runs):
            for task, protocol in run.tasks:
                if run.status == "done" and run.run_id is not None and protocol is not None:
                    score = store.load_score(run.run_id, task, protocol)
                    if score is not None:
                        self._scores[index, task, protocol] = score
                        redescribed |= _redescribed(run, score)
                        if run.in_distribution(task):
                            self._in_distribution[run.row_key(), task, protocol].append(score)
        if redescribed:
            log.warning(
                "sweep %s: described otherwise now than when its results were made: %s. Relations follow from the "
                "description in the sweep's manifest",
                *(manifest.name, ", ".join(sorted(redescribed))),
            )
        by_length = sorted(self._scores.values(), key=lambda score: len(score.metrics))
        self._example = {score.task: score for score in by_length}

    def rows(self) -> Iterator[ResultRow]:
        """One per run, task and metric; of a run without a score, one per metric that the task has elsewhere."""
        for index, run in enumerate(self._runs):
            for task, protocol in run.tasks:
                common = _run_columns(run) | _task_columns(run, task, protocol)
                score = self._scores.get((index, task, protocol))
                if score is None:
                    yield from (common | row for row in self._without_score(run, task, protocol))
                else:
                    yield from (common | self._with_score(run, score, metric) for metric in score.metrics)

    def _without_score(self, run: SweepRun, task: str, protocol: str | None) -> Iterator[ResultRow]:
        row: ResultRow = {"status": "missing" if run.status == "done" else run.status}
        if run.status == "done" and run.run_id is not None and protocol is not None:
            failure = self._store.load_failure(run.run_id, task, protocol)
            if failure is not None:
                row = {"status": "failed", "error": one_line(failure.error)}
        example = self._example.get(task)
        if example is None:
            yield row
            return
        for metric in example.metrics:
            if not (run.full_precision and metrics.is_relative(metric.name)):
                yield row | _metric_columns(metric)

    def _with_score(self, run: SweepRun, score: Score, metric: Metric) -> ResultRow:
        row = _metric_columns(metric)
        row |= {"value": metric.value, "stderr": metric.stderr, "n": metric.n, "n_tokens": score.n_tokens}
        row["cut_prompts"], row["cut_answers"] = score.cut_prompts, score.cut_answers
        row["overlap_13gram"] = None if score.overlap is None else float(score.overlap["share"])
        if not run.full_precision and not metrics.is_relative(metric.name):
            row |= self._from_full_precision(run, score, metric)
        if run.in_distribution(score.task) is False or run.relation(score.task) == MIXED:
            row |= self._transfer_gap(run, score, metric)
        return row

    def _totals_of(self, score: Score) -> dict[str, Totals]:
        key = (score.run_id, score.task, score.protocol)
        if key not in self._totals:
            self._totals[key] = self._store.load_totals(score)
        return self._totals[key]

    def _from_full_precision(self, run: SweepRun, score: Score, metric: Metric) -> ResultRow:
        if run.baseline is None:
            return {"error": "no difference: the manifest names no full-precision run for this cell"}
        other = self._store.load_score(run.baseline, score.task, score.protocol)
        if other is None:
            others = [s.protocol for s in self._store.scores(run.baseline) if s.task == score.task]
            scored = f"only under {', '.join(others)}" if others else "not at all"
            told = f"full precision is scored on this task {scored}, not under {score.protocol}"
            return {"error": f"no difference: {told}"}
        found = self._paired(score, other, metric)
        if found is None:
            return {}
        return {
            "difference": found.difference,
            "difference_stderr": found.stderr,
            "difference_low": found.lower,
            "difference_high": found.upper,
        }

    def _transfer_gap(self, run: SweepRun, score: Score, metric: Metric) -> ResultRow:
        """Against the same recipe calibrated on the test distribution, where the sweep has exactly one such run."""
        same = self._in_distribution.get((run.row_key(), score.task, score.protocol), [])
        found = self._paired(score, same[0], metric) if len(same) == 1 else None
        if found is None:
            return {}
        return {
            "transfer_gap": found.difference,
            "transfer_gap_stderr": found.stderr,
            "transfer_gap_low": found.lower,
            "transfer_gap_high": found.upper,
        }

    def _paired(self, score: Score, other: Score, metric: Metric) -> Comparison | None:
        if score.clusters != other.clusters:
            raise StoreError(
                f"runs {score.run_id} and {other.run_id}, task {score.task}, one protocol {score.protocol}: paired "
                f"scores must be over the same items in the same clusters, of which there are {score.n_items} in "
                f"{score.n_clusters} and {other.n_items} in {other.n_clusters}"
            )
        baseline = self._totals_of(other).get(metric.name)
        return None if baseline is None else compare(self._totals_of(score)[metric.name], baseline)


def _run_columns(run: SweepRun) -> ResultRow:
    row: ResultRow = {
        "sweep": run.sweep,
        "model": run.model,
        "calib": run.calib,
        "calib_variant": run.calib_variant,
        **_calib_columns(run.calib_origins),
        "quantizer": run.quantizer,
        "variant": run.variant,
        "scale": run.scale,
        "run_id": run.run_id,
        "baseline": run.baseline,
        "status": run.status,
        "error": run.error,
        "data_free": run.data_free,
        "full_precision": run.full_precision,
        "seed": run.identity("seed"),
        "draw": run.identity("draw"),
        "replicate": run.identity("replicate"),
    }
    record = run.record
    if record is not None:
        row["settings"] = settings(record.config.get("quantizer", {})) or None
        row["effective_bits"] = record.effective_bits
        if run.full_precision and record.effective_bits is None:
            row["effective_bits"] = record.bits_model
        row["kv_bits"] = record.kv_bits
        row["calib_tokens"] = (record.calibration or {}).get("n_tokens")
        row["fallbacks"] = " ".join(f"{name}={count}" for name, count in sorted(record.fallbacks.items())) or None
    return row


def _calib_columns(origins: Sequence[Origin]) -> ResultRow:
    """What was calibrated on, by what the data are, whatever the option was called."""

    def joined(values: Iterable[str]) -> str | None:
        return " + ".join(dict.fromkeys(values)) or None

    return {
        "calib_distribution": joined(one.name for one in origins),
        "calib_family": joined(one.family for one in origins),
        "calib_domain": joined(one.domain for one in origins),
        "calib_language": joined(one.language for one in origins),
    }


def _task_columns(run: SweepRun, task: str, protocol: str | None) -> ResultRow:
    origin = run.task_origins[task]
    return {
        "task": task,
        "protocol": protocol,
        "distribution": origin.name,
        "family": origin.family,
        "domain": origin.domain,
        "language": origin.language,
        "in_distribution": run.in_distribution(task),
        "relation": run.relation(task),
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
