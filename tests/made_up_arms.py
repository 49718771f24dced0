"""Sweeps with several calibration draws, in memory: what every item of every run scored is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from quantbench.core.errors import StoreError
from quantbench.core.origin import Origin
from quantbench.metrics import metrics
from quantbench.metrics.clusters import clusters_digest
from quantbench.metrics.totals import Totals
from quantbench.report.scored import SweepScores
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import Failure, RunRecord, Score
from quantbench.store.store import Store

CPU = {"device": "cpu", "threads": 2}


def origin(name: str) -> Origin:
    return Origin(name=name, family="lm", domain=name, language="en")


class Lab(Store):
    """A store without a disk, and the manifest of its one sweep. Runs are added by their scores."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self._records: dict[str, RunRecord] = {}
        self._scores: dict[tuple[str, str, str], tuple[Score, dict[str, Totals], pd.DataFrame]] = {}
        self._cells: dict[str, CellEntry] = {}
        self.broken: set[tuple[str, str, str]] = set()
        self.items = "stored"

    def add(
        self,
        recipe: str,
        calib: str | None,
        draw: int,
        task: str,
        items: pd.DataFrame,
        *,
        names: Sequence[str] = ("kl",),
        protocol: str = "p",
        overrides: Sequence[str] = (),
        config: dict[str, Any] | None = None,
        prefix: str = "",
        **environment: Any,
    ) -> str:
        """Score a run on a task: its recipe, what it is calibrated on, its draw. Gives the run's id.

        items  columns cluster and those of the metrics. The recipe `none` is full precision. prefix: of the run's id
        """
        run_id = prefix + "-".join([recipe, *([calib, str(draw)] if calib else []), *overrides])
        identity: dict[str, Any] = {
            "model": {"dtype": "float32"},
            "quantizer": {"weight": {"bits": 4, "group_size": 64}},
        }
        if calib:
            identity["calib"] = {"source": calib, "n": 16, "length": 512, "seed": 0, "draw": draw}
            identity |= {"seed": 0, "replicate": 0}
        self._records[run_id] = RunRecord(
            run_id=run_id,
            status="quantized",
            choices={"model": "m", "quantizer": recipe},
            config=identity | (config or {}),
            fingerprints={},
            environment={"quantbench": "1"},
            created="2026-01-01T00:00:00+00:00",
            calibration={"n_tokens": 8192, "n": 16, "length": 512, "seed": 0, "draw": draw} if calib else None,
            origins=[origin(calib)] if calib else [],
            effective_bits=16.0 if recipe == "none" else 4.5 if recipe == "hqq" else 4.25,
        )
        frame = items.assign(item=[f"i{index:04d}" for index in range(len(items))], document="d")
        measured = [metrics.measure(name, frame) for name in names]
        totals = {name: found for name in names if (found := metrics.totals(name, frame)) is not None}
        score = Score(
            run_id=run_id,
            task=task,
            protocol=protocol,
            protocol_values={},
            origin=origin(task),
            metrics=measured,
            n_items=len(frame),
            n_clusters=frame["cluster"].nunique(),
            clusters=clusters_digest(frame["item"].tolist(), frame["cluster"].tolist()),
            n_tokens=int(frame["n_tokens"].sum()) if "n_tokens" in frame else 0,
            n_bytes=0,
            environment=CPU | environment,
        )
        self._scores[run_id, task, protocol] = (score, totals, frame)
        known = self._cells.get(run_id)
        tasks = {**({} if known is None else known.tasks), task: protocol}
        self._cells[run_id] = CellEntry(
            key=run_id,
            choices={"model": "m", "calib": calib or "wiki", "quantizer": recipe, "scale": "quick"},
            overrides=[f"calib={calib or 'wiki'}", f"quantizer={recipe}", f"calib.draw={draw}", *overrides],
            tasks=tasks,
            task_origins={name: origin(name) for name in tasks},
            calib_origins=[origin(calib)] if calib else [],
            status="done",
            run_id=run_id,
            baseline_run_id="none",
            data_free=calib is None,
        )
        return run_id

    @property
    def manifest(self) -> Manifest:
        return Manifest(name="s", overrides=[], cells=[cell for cell in self._cells.values() if cell.run_id != "none"])

    @property
    def sweep(self) -> SweepScores:
        return SweepScores(self, self.manifest)

    def load_run(self, run_id: str) -> RunRecord | None:
        return self._records.get(run_id)

    def load_score(self, run_id: str, task: str, protocol: str) -> Score | None:
        if (run_id, task, protocol) in self.broken:
            raise StoreError(f"{run_id}-{task}.json is damaged. Delete it")
        found = self._scores.get((run_id, task, protocol))
        return None if found is None else found[0]

    def scores(self, run_id: str) -> list[Score]:
        return [score for (owner, _, _), (score, _, _) in self._scores.items() if owner == run_id]

    def load_totals(self, score: Score) -> dict[str, Totals]:
        return self._scores[score.run_id, score.task, score.protocol][1]

    def load_items(self, run_id: str, task: str, protocol: str) -> pd.DataFrame:
        if self.items == "damaged":
            raise StoreError(f"cannot read {run_id}-{task}.parquet")
        return self._scores[run_id, task, protocol][2]

    def has_items(self, run_id: str, task: str, protocol: str) -> bool:
        return self.items != "missing"

    def load_failure(self, run_id: str, task: str, protocol: str) -> Failure | None:
        return None

    def has_score(self, run_id: str, task: str, protocol: str) -> bool:
        return (run_id, task, protocol) in self._scores


def text(values: Any, per_cluster: int = 4, names: Sequence[str] = ("kl",)) -> pd.DataFrame:
    """Windows of a text, `per_cluster` neighbours in each cluster, with these values [n] of each of the columns."""
    values = np.asarray(values, dtype=np.float64)
    clusters = [f"c{index // per_cluster:03d}" for index in range(len(values))]
    return pd.DataFrame({"cluster": clusters, "n_tokens": 511, **dict.fromkeys(names, values)})


def answers(right: Any, per_passage: int = 1, n_labels: int | None = None) -> pd.DataFrame:
    """Questions answered right (1) or wrong (0), several on a passage, with so many labels to choose from."""
    right = np.asarray(right, dtype=np.float64)
    clusters = [f"q{index // per_passage:04d}" for index in range(len(right))]
    known = {} if n_labels is None else {"n_labels": float(n_labels)}
    return pd.DataFrame({"cluster": clusters, "n_tokens": 1, "accuracy": right, **known})
