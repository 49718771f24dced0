"""The scores of runs: values, the outcome of every item, and what errors are computed from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from quantbench.core import files
from quantbench.core.errors import StoreError
from quantbench.core.shared import is_there, relist
from quantbench.metrics import metrics
from quantbench.metrics.clusters import clusters_digest
from quantbench.metrics.statistics import Estimate, Values
from quantbench.metrics.totals import Totals
from quantbench.store.base import LockedFolder, load_record, refuse_change
from quantbench.store.layout import safe_name
from quantbench.store.records import Failure, Score


class ScoreStore(LockedFolder):
    """The scores under runs/<run_id>/scores/. The JSON file of a score is written last."""

    def load_score(self, run_id: str, task: str, protocol: str) -> Score | None:
        """A run's score on a task under a protocol, None if there is none. Raises StoreError if it is damaged."""
        return self._load_score(self.score_path(run_id, task, protocol), (run_id, task, protocol))

    def has_score(self, run_id: str, task: str, protocol: str) -> bool:
        """Whether there is such a score; it is not read."""
        return is_there(self.score_path(run_id, task, protocol))

    def has_items(self, run_id: str, task: str, protocol: str) -> bool:
        """Whether the items behind a score are here: those of merged scores are not (quantbench.store.merge)."""
        return is_there(self.score_path(run_id, task, protocol).with_suffix(".parquet"))

    def load_items(self, run_id: str, task: str, protocol: str) -> pd.DataFrame:
        """The per-item outcomes behind a score, one row per item. Raises StoreError if missing or damaged."""
        path = self.score_path(run_id, task, protocol)
        return files.read_parquet(path.with_suffix(".parquet"), _score_remedy(path))

    def load_positions(self, run_id: str, task: str, protocol: str) -> pd.DataFrame:
        """The outcome at each scored position of running text (quantbench.tasks.positions). Raises as load_items."""
        path = self.score_path(run_id, task, protocol)
        return files.read_parquet(path.with_suffix(".positions.parquet"), _score_remedy(path))

    def load_totals(self, score: Score) -> dict[str, Totals]:
        """Each metric of a score by the clusters of its items, without reading these.

        Raises StoreError if the file is missing, damaged, or not of this score.
        """
        path = self.score_path(score.run_id, score.task, score.protocol)
        found = files.read_array(path.with_suffix(".totals.npy"), _score_remedy(path))
        if found.shape != (len(score.metrics), score.n_clusters):
            raise StoreError(
                f"{path.with_suffix('.totals.npy')} holds {list(found.shape)} numbers, but the score has "
                f"{len(score.metrics)} metrics and {score.n_clusters} clusters. {_score_remedy(path)}"
            )
        return {
            metric.name: Totals(metric.value, row, metric.n, metrics.is_log_scale(metric.name))
            for metric, row in zip(score.metrics, found, strict=True)
        }

    def save_score(
        self,
        score: Score,
        items: pd.DataFrame,
        attachments: Mapping[str, str] | None = None,
        estimates: Mapping[str, Estimate] | None = None,
        positions: pd.DataFrame | None = None,
    ) -> None:
        """Store a score, its per-item outcomes, and the totals of its metrics over the items' clusters.

        items        columns item, document and cluster (str, item unique), then numbers; docs/results.md has those of
                     each kind of task
        attachments  file name suffix -> text, stored as it is beside the score
        estimates    of metrics that the items do not give, by name
        positions    the outcome at each scored position of running text

        Raises StoreError if the items do not fit the score, do not give its metrics or hold NaN, or if a different
        score is stored already.
        """
        path = self.score_path(score.run_id, score.task, score.protocol)
        name = f"the items of task {score.task!r} of run {score.run_id}"
        metrics.check_items(items, score.n_items, name)
        _check_clusters(score, items, name)
        totals = _totals(score, items, estimates or {}, name)
        text = score.to_json()
        with self.lock(score.run_id):
            old = self.load_score(score.run_id, score.task, score.protocol)
            if old is not None:
                refuse_change(path, old, score)
                return
            files.make_folder(path.parent)
            files.write_parquet(path.with_suffix(".parquet"), items)
            files.write_array(path.with_suffix(".totals.npy"), totals)
            if positions is not None:
                files.write_parquet(path.with_suffix(".positions.parquet"), positions, "zstd")
            for suffix, attached in (attachments or {}).items():
                files.write_text(path.with_suffix(f".{safe_name(suffix, 'attachment')}"), attached)
            files.write_text(path, text)
            self.failure_path(score.run_id, score.task, score.protocol).unlink(missing_ok=True)

    def save_failure(self, run_id: str, task: str, protocol: str, failure: Failure) -> None:
        """Store why a run could not be scored on a task, in place of an older reason."""
        path = self.failure_path(run_id, task, protocol)
        with self.lock(run_id):
            files.make_folder(path.parent)
            files.write_text(path, failure.to_json())

    def load_failure(self, run_id: str, task: str, protocol: str) -> Failure | None:
        """Why a run could not be scored on a task when that was tried last; None if it was not, or could be."""
        path = self.failure_path(run_id, task, protocol)
        return load_record(Failure, path, f"Delete {path}: the task is then tried again")

    def scores(self, run_id: str) -> list[Score]:
        """All scores of a run, by task and protocol."""
        folder = self.run_dir(run_id) / "scores"
        relist(folder)
        found = sorted(folder.glob("[!.]*.json"))
        # <task>-<protocol>.json; an attachment has one more suffix before .json.
        paths = [path for path in found if "." not in path.stem.rpartition("-")[2]]
        loaded = [self._load_score(path, (run_id,)) for path in paths]
        return sorted((score for score in loaded if score is not None), key=lambda s: (s.task, s.protocol))

    def _load_score(self, path: Path, expected: tuple[str, ...]) -> Score | None:
        score = load_record(Score, path, _score_remedy(path))
        if score is not None and (score.run_id, score.task, score.protocol)[: len(expected)] != expected:
            raise StoreError(f"{path} holds another score than {' / '.join(expected)}. {_score_remedy(path)}")
        return score


def _score_remedy(path: Path) -> str:
    return f"Restore it, or delete {path.with_suffix('.json')} and .parquet to score that task again"


def _check_clusters(score: Score, items: pd.DataFrame, name: str) -> None:
    n, digest = items["cluster"].nunique(), clusters_digest(items["item"].tolist(), items["cluster"].tolist())
    if (score.n_clusters, score.clusters) != (n, digest):
        raise StoreError(
            f"{name} lie in {n} clusters of digest {digest[:12]}; the score has n_clusters={score.n_clusters}, "
            f"clusters={score.clusters[:12]}"
        )


def _totals(score: Score, items: pd.DataFrame, estimates: Mapping[str, Estimate], name: str) -> Values:
    """float64 [metrics, G]: a row a metric of the score."""
    found = [metrics.totals(metric.name, items, estimates) for metric in score.metrics]
    missing = [metric.name for metric, one in zip(score.metrics, found, strict=True) if one is None]
    if missing:
        raise StoreError(f"{name} do not give the metrics {', '.join(missing)} of the score")
    rows = [one.totals for one in found if one is not None]
    return np.stack(rows) if rows else np.empty((0, score.n_clusters))
