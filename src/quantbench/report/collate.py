"""From the store to one long tidy table: results.csv, the same to the byte for the same scores."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from quantbench.core import files
from quantbench.report.columns import Block, block_frame
from quantbench.report.order import natural, of_metric
from quantbench.report.rows import SweepRows
from quantbench.report.scored import SweepScores
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store

FLOAT_FORMAT = "%.10g"


def collate(store: Store, manifests: Sequence[Manifest]) -> pd.DataFrame:
    """The results of sweeps, as a frame of RESULT_COLUMNS, sorted: one row per run in a sweep, task and metric.

    A cell that failed or has not run has its rows, too, with an empty value. Differences are paired over the clusters
    of items of two runs, and only taken between scores of equal task and protocol; where there is no such
    full-precision score, the column `error` says so. What is damaged is marked, and the rest collated.
    """
    return collated([SweepScores(store, manifest) for manifest in manifests])


def collated(sweeps: Sequence[SweepScores]) -> pd.DataFrame:
    """As `collate`, of scores that are read once for several purposes."""
    blocks = [block for scores in sweeps for block in SweepRows(scores).blocks()]
    for block in blocks:
        block.rows.sort(key=lambda row: of_metric(row.get("metric")))
    return block_frame(sorted(blocks, key=_order))


def write(store: Store, name: str, frame: pd.DataFrame) -> None:
    """Write results.parquet and results.csv into the folder of the sweep, atomically."""
    folder = store.sweep_dir(name)
    files.write_parquet(folder / "results.parquet", frame)
    files.write_text(folder / "results.csv", csv_text(frame))


def write_comparisons(store: Store, name: str, frame: pd.DataFrame) -> None:
    """Write comparisons.csv into the folder of the sweep, atomically."""
    files.write_text(store.sweep_dir(name) / "comparisons.csv", csv_text(frame))


def csv_text(frame: pd.DataFrame) -> str:
    """The frame as CSV: no index, numbers to ten digits, empty fields for what is not known."""
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(frame.columns)
    rows.writerows(zip(*(_texts(frame[name]) for name in frame.columns), strict=True))
    return written.getvalue()


def _texts(column: pd.Series[Any]) -> list[Any]:
    """A column's fields. (pandas' own writer takes several times as long for the many columns there are.)"""
    if str(column.dtype) == "Float64":
        return ["" if math.isnan(one) else FLOAT_FORMAT % one for one in column.to_numpy(np.float64, na_value=np.nan)]
    return column.to_numpy(object, na_value="").tolist()


def _order(block: Block) -> list[object]:
    """Full precision first, then data-free recipes, then by name; numbers in names count as numbers."""
    row = block.common
    first = [row["sweep"], row["model"], row["scale"]]
    recipe = [row["quantizer"], row["variant"]]
    run = [row["calib"], row["calib_variant"], row.get("seed"), row.get("draw"), row.get("replicate"), row["run_id"]]
    return [
        *map(natural, first),
        not row["full_precision"],
        *map(natural, recipe),
        not row["data_free"],
        *map(natural, [*run, row["task"], row["protocol"]]),
    ]
