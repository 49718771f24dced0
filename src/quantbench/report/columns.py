"""The columns of results.csv and results.parquet: one row per run in a sweep, task and metric."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import pandas as pd

DATA_FREE = "(none: data-free)"
"""What stands for the calibration set of a recipe that reads none, and of full precision."""


class Column(NamedTuple):
    """A column's type (pandas, nullable: an empty field is "not known" or "does not apply") and meaning."""

    dtype: Literal["string", "Int64", "Float64", "boolean"]
    description: str


RESULT_COLUMNS: dict[str, Column] = {
    "sweep": Column("string", "name of the sweep"),
    "model": Column("string", "chosen model option"),
    "calib": Column(
        "string", f"chosen calibration set, or the name of its file where files differ; {DATA_FREE} if none is read"
    ),
    "calib_variant": Column(
        "string", "overrides under calib. that differ between the sweep's cells (draw and seed aside)"
    ),
    "quantizer": Column("string", "chosen recipe option"),
    "variant": Column("string", "all other overrides that differ between the sweep's cells, e.g. weight.bits=3"),
    "settings": Column("string", "the recipe's resolved settings"),
    "full_precision": Column("boolean", "whether this is the full-precision run others are compared with"),
    "scale": Column("string", "chosen scale option: how much text the study uses"),
    "seed": Column("Int64", "seed of the calibration draw"),
    "draw": Column("Int64", "number of the calibration draw"),
    "replicate": Column("Int64", "number of the replicate"),
    "run_id": Column("string", "the run's folder in the store; empty if the cell failed before it was known"),
    "status": Column("string", "done, failed, pending (not run yet) or missing (done, but no such score is stored)"),
    "error": Column("string", "why the cell failed, or why no difference from full precision can be given"),
    "task": Column("string", "task"),
    "distribution": Column("string", "test distribution of the task"),
    "family": Column("string", "family of the test distribution: lm, sa, nli, td, eqa, ner, exam, ..."),
    "domain": Column("string", "domain of the test distribution"),
    "language": Column("string", "language of the test distribution"),
    "in_distribution": Column(
        "boolean", "whether the calibration set is drawn from the test distribution; empty if in part (a mixture)"
    ),
    "relation": Column(
        "string",
        "how far the test distribution is from that calibrated on: in-distribution, mixed, related, near OOD, far OOD, "
        "control; empty if not known",
    ),
    "protocol": Column("string", "protocol id: scores are comparable only where it is equal"),
    "metric": Column("string", "metric; empty for a cell that failed where no other cell shows which metrics it has"),
    "value": Column("Float64", "value of the metric"),
    "stderr": Column("Float64", "standard error of the value over items"),
    "n": Column("Int64", "number of items (windows, questions)"),
    "n_tokens": Column("Int64", "predicted tokens over all items"),
    "unit": Column("string", "unit of the metric"),
    "higher_is_better": Column("boolean", "direction of the metric"),
    "baseline": Column("string", "run id of the full-precision run"),
    "difference": Column("Float64", "value minus that of full precision, over the same items"),
    "difference_stderr": Column("Float64", "paired standard error of the difference"),
    "difference_low": Column("Float64", "lower end of its 95 % t interval"),
    "difference_high": Column("Float64", "upper end of its 95 % t interval"),
    "own_difference": Column(
        "Float64", "value minus that of the same recipe calibrated on the test distribution itself"
    ),
    "own_difference_stderr": Column("Float64", "paired standard error of own_difference"),
    "own_difference_low": Column("Float64", "lower end of its 95 % t interval"),
    "own_difference_high": Column("Float64", "upper end of its 95 % t interval"),
    "effective_bits": Column("Float64", "bits per quantized weight, everything stored counted"),
    "kv_bits": Column("Float64", "bits per quantized element of the key-value cache, everything stored counted"),
    "calib_tokens": Column("Int64", "tokens calibrated on"),
    "fallbacks": Column("string", "what gave way while quantizing, and how often: name=count"),
    "overlap_13gram": Column("Float64", "share of test items that have a 13-gram in common with the calibration text"),
    "data_free": Column("boolean", "whether the recipe reads no calibration data"),
}
"""In the order of the file. There are no times or dates in it: equal scores give an equal file."""


def result_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows, in their order, as a frame with exactly the columns and types of RESULT_COLUMNS."""
    listed = list(rows)
    unknown = sorted({key for row in listed for key in row} - RESULT_COLUMNS.keys())
    if unknown:
        raise KeyError(f"not in RESULT_COLUMNS: {unknown}")
    columns = {
        name: pd.array([row.get(name) for row in listed], dtype=column.dtype) for name, column in RESULT_COLUMNS.items()
    }
    return pd.DataFrame(columns)
