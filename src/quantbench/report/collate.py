"""From the store to one long tidy table: results.csv, the same to the byte for the same scores."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from quantbench.core import files
from quantbench.metrics import metrics
from quantbench.report.columns import RESULT_COLUMNS, ResultRow, result_frame
from quantbench.report.rows import SweepRows
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store

FLOAT_FORMAT = "%.10g"


def collate(store: Store, manifests: Sequence[Manifest]) -> pd.DataFrame:
    """The results of sweeps, as a frame of RESULT_COLUMNS, sorted: one row per run in a sweep, task and metric.

    A cell that failed or has not run has its rows, too, with an empty value. Differences are paired over the items of
    two runs, and only taken between scores of equal task and protocol; where there is no such full-precision score, the
    column `error` says so. Raises StoreError if a stored file is damaged, a value is not that of its items, or two
    scores of one protocol are over different items.
    """
    rows = [row for manifest in manifests for row in SweepRows(store, manifest).rows()]
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


def _order(row: ResultRow) -> list[object]:
    """Full precision first, then data-free recipes, then by name; numbers in names count as numbers."""
    first = [row["sweep"], row["model"], row["scale"]]
    recipe = [row["quantizer"], row["variant"]]
    run = [row["calib"], row["calib_variant"], row.get("seed"), row.get("draw"), row.get("replicate"), row["run_id"]]
    known = list(metrics.METRICS)
    metric = row.get("metric") or ""
    position = known.index(metric) if metric in known else len(known)
    return [
        *map(_natural, first),
        not row["full_precision"],
        *map(_natural, recipe),
        not row["data_free"],
        *map(_natural, [*run, row["task"], row["protocol"]]),
        position,
        metric,
    ]


def _natural(value: str | int | None) -> list[str | int]:
    parts = re.split(r"(\d+)", "" if value is None else str(value))
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]
