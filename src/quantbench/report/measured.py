"""Measured time of runs as a column beside their results, of measurements that can be compared."""

from __future__ import annotations

import pandas as pd

from quantbench.core.errors import StoreError
from quantbench.report.axes import Axis

CONDITIONS = ["engine", "format", "device", "threads", "batch", "context", "decode", "environment"]
"""Equal for measurements that are compared; one that does not say them all is not."""


def with_measured(results: pd.DataFrame, costs: pd.DataFrame, axis: Axis) -> tuple[pd.DataFrame, str]:
    """The results with the column of a measured axis, in milliseconds, and under which conditions that was measured.

    costs  of the runs, as costs.csv has them

    Of several engines, loads or environments the one counts in which most runs were measured, the latest of equal ones;
    of several measurements of a run in it, the median. Raises StoreError where nothing was measured.
    """
    known = {"what", *CONDITIONS} <= set(costs.columns)
    lines = costs[costs["what"] == axis.measured].dropna(subset=CONDITIONS) if known else costs.iloc[:0]
    lines = lines[lines["run_id"].isin(results["run_id"])]
    if lines.empty:
        raise StoreError(
            f"--x {axis.name}: no run of it was measured. quantbench export RUN --to FORMAT FOLDER, then quantbench "
            "measure FOLDER, for each run that is to be compared"
        )
    groups = dict(list(lines.groupby(CONDITIONS, sort=False)))
    own = max(groups.values(), key=lambda one: (one["run_id"].nunique(), str(one["at"].max())))
    milliseconds = own.groupby("run_id")["seconds"].median() * 1000
    first, others = own.iloc[0], len(groups) - 1
    quantized = results.loc[~results["full_precision"] & results["run_id"].notna(), "run_id"].drop_duplicates()
    note = (
        f"Measured of exports to {first['format']} by {first['engine']} on {first['device']}, "
        f"threads={first['threads']:g}, batch={first['batch']:g}, "
        f"context={first['context']:g}, decode={first['decode']:g}, environment {first['environment']}: "
        f"{quantized.isin(milliseconds.index).sum()} of {len(quantized)} quantized runs"
    )
    note += f". Left out: measurements under other conditions ({others})." if others else "."
    return results.assign(**{axis.column: results["run_id"].map(milliseconds)}), note
