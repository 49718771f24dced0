"""The runs of sweeps and the columns that they are compared in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from quantbench.core.errors import StoreError
from quantbench.report.alike import Run
from quantbench.report.collate import collate
from quantbench.report.columns import ResultRow, result_rows
from quantbench.report.shown import default_metrics
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store

Column = tuple[str, str | None, str]
"""Task, protocol and metric."""


def runs_of(store: Store, manifests: Sequence[Manifest]) -> tuple[list[ResultRow], list[Run]]:
    """The rows of sweeps that belong to a run, and the runs. Raises StoreError if nothing has run yet."""
    rows = [row for row in result_rows(collate(store, manifests)) if row["run_id"] is not None]
    by_run: dict[str, list[ResultRow]] = {}
    for row in rows:
        by_run.setdefault(row["run_id"] or "", []).append(row)
    if not by_run:
        raise StoreError("nothing has run yet in " + ", ".join(manifest.name for manifest in manifests))
    return rows, [Run(run_id, own, _identity(store, run_id)) for run_id, own in by_run.items()]


def columns_of(rows: Sequence[ResultRow], chosen: Sequence[str] | None) -> list[Column]:
    """Task, protocol and metric of each column: scores of two protocols are never in one.

    chosen: metrics, None for those that have a table. Raises StoreError for one that no task has.
    """
    metrics_of: dict[tuple[str, str | None], list[str]] = {}
    for row in rows:
        if row["task"] and row["metric"]:
            found = metrics_of.setdefault((row["task"], row["protocol"]), [])
            if row["metric"] not in found:
                found.append(row["metric"])
    known = list(dict.fromkeys(metric for found in metrics_of.values() for metric in found))
    for metric in chosen or []:
        if metric not in known:
            raise StoreError(
                f"metric {metric}: no task of these sweeps has it. There are: {', '.join(known) or 'none'}"
            )
    wanted = chosen or default_metrics(pd.DataFrame({"metric": known}))
    told = {task for task, protocol in metrics_of if protocol is not None}
    kept = {key: found for key, found in metrics_of.items() if key[1] is not None or key[0] not in told}
    return [(*key, metric) for key, found in kept.items() for metric in wanted if metric in found]


def _identity(store: Store, run_id: str) -> Mapping[str, Any]:
    record = store.load_run(run_id)
    return {} if record is None else record.config
