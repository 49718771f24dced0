"""variance.csv: what the scores of each recipe vary by, as far as a sweep has runs that differ (protocol.md).

Runs are one recipe's if they agree in model, recipe, scale and amount of calibration text; they may differ in the data
set, its draw, the seeds of the method, and the replicate. Scores of another device, dtype or number of threads, or over
other clusters, are never put together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from quantbench.core.hashing import digest
from quantbench.core.origin import CONTROL_FAMILY
from quantbench.metrics import metrics
from quantbench.metrics.variance_components import Component, Observed, components
from quantbench.report.alike import flat
from quantbench.report.arms import DRAWN, undrawn, without_seeds
from quantbench.report.scored import Scored, SweepScores
from quantbench.report.settings import settings
from quantbench.report.sweep_runs import SweepRun

VARIANCE_COLUMNS = {
    "sweep": "string",
    "model": "string",
    "scale": "string",
    "recipe": "string",
    "settings": "string",
    "calib_n": "Int64",
    "calib_length": "Int64",
    "environment": "string",
    "task": "string",
    "protocol": "string",
    "distribution": "string",
    "metric": "string",
    "unit": "string",
    "of_logarithm": "boolean",
    "source": "string",
    "variance": "Float64",
    "sd": "Float64",
    "sd_low": "Float64",
    "sd_high": "Float64",
    "share": "Float64",
    "p": "Float64",
    "df": "Float64",
    "levels": "Int64",
    "value": "Float64",
    "n_runs": "Int64",
    "n_clusters": "Int64",
    "note": "string",
}
"""The columns of variance.csv with their types. docs/protocol.md says what they mean."""

AMOUNT = ("n", "length")
"""Settings of a calibration set that say how much is drawn: other amounts are other rows."""


def variance(sweeps: Sequence[SweepScores]) -> pd.DataFrame:
    """One row per sweep, recipe, task, metric and source of variance, of VARIANCE_COLUMNS, sorted.

    variance, sd and its interval are on the scale that the metric is tested on: the logarithm where `of_logarithm` says
    so. Left out are full precision, runs calibrated on controls (random tokens are no sample of texts), scores that
    cannot be read, and metrics without an error.
    """
    rows = [row for scores in sweeps for row in _rows(scores)]
    found = {name: pd.Series([row.get(name) for row in rows], dtype=kind) for name, kind in VARIANCE_COLUMNS.items()}
    return pd.DataFrame(found)


@dataclass(frozen=True, eq=False)
class _Facts:
    """What the rows say of a run, and its levels; worked out once for all of its tasks."""

    columns: dict[str, Any]
    recipe: str
    calibration: str | None
    draws: str
    seeds: str
    replicate: int | None

    @staticmethod
    def of(run: SweepRun) -> _Facts:
        """Of a run that is done. `recipe` is the digest of its settings without seeds."""
        config = {} if run.record is None else run.record.config
        calib, recipe = flat(config.get("calib") or {}), config.get("quantizer") or {}
        drawn = {key: value for key, value in calib.items() if _is_drawn(key)}
        text = {key: value for key, value in calib.items() if key not in drawn and key not in AMOUNT}
        columns = {
            "sweep": run.sweep,
            "model": run.model,
            "scale": run.scale,
            "recipe": " ".join(part for part in (run.quantizer, without_seeds(run.variant)) if part),
            "settings": settings(undrawn(recipe)) or None,
            **{f"calib_{name}": calib.get(name) for name in AMOUNT},
        }
        return _Facts(
            columns,
            recipe=digest(undrawn(recipe)),
            calibration=digest(text) if text else None,
            draws=digest([drawn, config.get("seed")]),
            seeds=digest({key: value for key, value in flat(recipe).items() if _is_drawn(key)}),
            replicate=config.get("replicate"),
        )


@dataclass(frozen=True, eq=False)
class _Observation:
    """A run's score on a task."""

    facts: _Facts
    scored: Scored

    def columns(self) -> dict[str, Any]:
        """What the rows say of it: equal for runs that are one recipe's."""
        score, where = self.scored.score, self.scored.score.environment
        parts = (where.get("gpu") or where.get("device"), where.get("dtype"), f"threads={where.get('threads')}")
        return self.facts.columns | {
            "environment": ", ".join(str(part) for part in parts if part is not None),
            "task": score.task,
            "protocol": score.protocol,
            "distribution": score.origin.name,
            "n_clusters": score.n_clusters,
        }

    def observed(self, chosen: Sequence[str]) -> Observed:
        """The metrics of this run, with its levels."""
        y, facts = self.scored.y[[self.scored.rows[metric] for metric in chosen]], self.facts
        return Observed(y, facts.calibration, facts.draws, facts.seeds, facts.replicate)


def _rows(scores: SweepScores) -> Iterator[dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[_Observation]] = defaultdict(list)
    for run in scores.runs:
        if run.full_precision or (run.calib_origins and all(o.family == CONTROL_FAMILY for o in run.calib_origins)):
            continue
        facts = _Facts.of(run)
        for task, protocol in run.tasks:
            if (scored := scores.of(run, task, protocol)) is not None:
                one = _Observation(facts, scored)
                groups[(*one.columns().values(), facts.recipe, scored.score.clusters)].append(one)
    for _, several in sorted(groups.items(), key=lambda item: [str(part) for part in item[0]]):
        yield from _of_group(several)


def _of_group(several: Sequence[_Observation]) -> Iterator[dict[str, Any]]:
    """The rows of runs of one recipe on one task, of the metrics that all of them have an error of."""
    usable = [
        {name for name, row in one.scored.rows.items() if np.isfinite(one.scored.y[row]).all()} for one in several
    ]
    chosen = [name for name in several[0].scored.rows if all(name in names for names in usable)]
    common = several[0].columns() | {"n_runs": len(several)}
    found = components([one.observed(chosen) for one in several]) if chosen else []
    for metric, sources in zip(chosen, found, strict=True):
        totals = [one.scored.totals[metric] for one in several]
        own = {
            "metric": metric,
            "unit": metrics.unit(metric),
            "of_logarithm": totals[0].log_scale,
            "value": float(np.mean([one.value for one in totals])),
        }
        whole = sum(max(0.0, one.variance) for one in sources)
        yield from (common | own | _columns(one, whole) for one in sources)


def _columns(one: Component, whole: float) -> dict[str, Any]:
    return {
        "source": one.source,
        "variance": one.variance,
        "sd": one.sd,
        "sd_low": None if one.low is None else one.low**0.5,
        "sd_high": None if one.high is None else one.high**0.5,
        "share": max(0.0, one.variance) / whole if whole > 0 else None,
        "p": one.p,
        "df": one.df,
        "levels": one.levels,
        "note": one.note or None,
    }


def _is_drawn(key: str) -> bool:
    return key.rpartition(".")[2] in DRAWN
