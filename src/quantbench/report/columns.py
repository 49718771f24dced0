"""The columns of results.csv and results.parquet: one row per run in a sweep, task and metric."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, cast, get_args, get_type_hints

import numpy as np
import pandas as pd

from quantbench.core.errors import StoreError

DATA_FREE = "(none: data-free)"
"""What stands for the calibration set of a recipe that reads none, and of full precision."""


class ResultRow(TypedDict, total=False):
    """One row: each column with its type and meaning. None is "not known" or "does not apply", an empty field."""

    sweep: Annotated[str, "name of the sweep"]
    model: Annotated[str, "chosen model option"]
    calib: Annotated[
        str,
        "what was calibrated on: the distribution, the option of a mixture, or the name of the user's file where files "
        f"differ; {DATA_FREE} if none is read",
    ]
    calib_variant: Annotated[str, "overrides under calib. that differ between the sweep's cells (draw and seed aside)"]
    calib_distribution: Annotated[str | None, "distribution calibrated on; those of a mixture joined by +"]
    calib_family: Annotated[str | None, "its family, or families"]
    calib_domain: Annotated[str | None, "its domain, or domains"]
    calib_language: Annotated[str | None, "its language, or languages"]
    quantizer: Annotated[str, "chosen recipe option"]
    variant: Annotated[str, "all other overrides that differ between the sweep's cells, e.g. weight.bits=3"]
    settings: Annotated[str | None, "the recipe's resolved settings"]
    full_precision: Annotated[bool, "whether this is the full-precision run others are compared with"]
    scale: Annotated[
        str, "chosen scale option: how much text the study uses; behind `with` what of it all cells have otherwise"
    ]
    seed: Annotated[int | None, "seed of the calibration draw"]
    draw: Annotated[int | None, "number of the calibration draw"]
    replicate: Annotated[int | None, "number of the replicate"]
    run_id: Annotated[str | None, "the run's folder in the store; empty if the cell failed before it was known"]
    status: Annotated[
        str,
        "done, failed, pending (not run yet), missing (done, but no such score is stored) or damaged (cannot be read)",
    ]
    error: Annotated[
        str | None, "why the cell failed, what is damaged, or why no difference from full precision can be given"
    ]
    task: Annotated[str, "task"]
    distribution: Annotated[str | None, "test distribution of the task"]
    family: Annotated[str | None, "family of the test distribution: lm, sa, nli, td, eqa, ner, exam, ..."]
    domain: Annotated[str | None, "domain of the test distribution"]
    language: Annotated[str | None, "language of the test distribution"]
    in_distribution: Annotated[
        bool | None, "whether the calibration set is drawn from the test distribution; empty if in part (a mixture)"
    ]
    relation: Annotated[
        str | None,
        "how far the test distribution is from that calibrated on: in-distribution, mixed, related, near OOD, far OOD, "
        "control; empty if not known",
    ]
    protocol: Annotated[str | None, "protocol id: scores are comparable only where it is equal"]
    metric: Annotated[str | None, "metric; empty for a cell that failed where no other cell shows which metrics it has"]
    value: Annotated[float | None, "value of the metric"]
    stderr: Annotated[float | None, "standard error of the value over clusters of items"]
    value_low: Annotated[
        float | None, "lower end of its 95 % interval; of perplexities, that of its logarithm; of recovery, Fieller's"
    ]
    value_high: Annotated[float | None, "upper end"]
    n: Annotated[int | None, "number of items (windows, questions)"]
    n_clusters: Annotated[int | None, "number of clusters the items lie in (documents, passages)"]
    n_tokens: Annotated[int | None, "predicted tokens over all items"]
    cut_prompts: Annotated[int | None, "items whose prompt was cut to fit the model; empty for running text"]
    cut_answers: Annotated[int | None, "items whose generated answer was cut at the most tokens it may have"]
    unit: Annotated[str | None, "unit of the metric"]
    higher_is_better: Annotated[bool | None, "direction of the metric"]
    baseline: Annotated[str | None, "run id of the full-precision run"]
    difference: Annotated[float | None, "value minus that of full precision, over the same items"]
    difference_stderr: Annotated[float | None, "standard error of the difference, paired over clusters"]
    difference_low: Annotated[float | None, "lower end of its 95 % interval"]
    difference_high: Annotated[float | None, "upper end"]
    p: Annotated[
        float | None,
        "p value of no difference from full precision, of all draws of the run's arm together (comparisons.csv)",
    ]
    p_holm: Annotated[float | None, "Holm's adjusted p value, over the arms and texts of a model, scale and metric"]
    verdict: Annotated[
        str | None, "better, worse, equivalent, undecided or not comparable: the arm against full precision"
    ]
    transfer_gap: Annotated[
        float | None,
        "value minus that of the same recipe calibrated on the test distribution itself, over the same items",
    ]
    transfer_gap_stderr: Annotated[float | None, "standard error of transfer_gap, of this draw, paired over clusters"]
    transfer_gap_low: Annotated[float | None, "lower end of its 95 % interval"]
    transfer_gap_high: Annotated[float | None, "upper end"]
    weight_bits: Annotated[float | None, "bits of a weight's code, as the recipe's format says"]
    group_size: Annotated[str | None, "weights that share a scale: a number, channel or tensor"]
    effective_bits: Annotated[
        float | None,
        "bits per quantized weight, everything stored counted; of full precision, bits per parameter of the model",
    ]
    bits_model: Annotated[float | None, "bits per parameter of the model, what is not quantized included"]
    kv_bits: Annotated[float | None, "bits per quantized element of the key-value cache, everything stored counted"]
    calib_n: Annotated[int | None, "sequences calibrated on"]
    calib_length: Annotated[int | None, "their tokens"]
    calib_tokens: Annotated[int | None, "tokens calibrated on"]
    fallbacks: Annotated[str | None, "what gave way while quantizing, and how often: name=count"]
    overlap_13gram: Annotated[
        float | None, "share of test items that have a 13-gram in common with the calibration text"
    ]
    data_free: Annotated[bool, "whether the recipe reads no calibration data, so that its cells are one run"]
    model_dtype: Annotated[str | None, "dtype the model was loaded in"]
    device: Annotated[str | None, "device the score was computed on: cpu, or the name of the GPU"]
    threads: Annotated[int | None, "threads it was computed with"]
    schema_version: Annotated[int | None, "version of the stored score"]


class Column(NamedTuple):
    """A column's type (pandas, nullable) and meaning."""

    dtype: Literal["string", "Int64", "Float64", "boolean"]
    description: str


_DTYPES: dict[type, Literal["string", "Int64", "Float64", "boolean"]] = {
    str: "string",
    int: "Int64",
    float: "Float64",
    bool: "boolean",
}


def columns_of(row: type) -> dict[str, Column]:
    """The columns that a TypedDict of annotated types declares, in its order."""
    found = {}
    for name, hint in get_type_hints(row, include_extras=True).items():
        kind, description = get_args(hint)
        plain = next((one for one in get_args(kind) if one is not type(None)), kind)
        found[name] = Column(_DTYPES[plain], description)
    return found


RESULT_COLUMNS = columns_of(ResultRow)
"""In the order of the file. There are no times or dates in it: equal scores give an equal file."""


class Block(NamedTuple):
    """Rows that have most columns in common: those of one score."""

    common: ResultRow
    rows: list[ResultRow]


def result_frame(rows: Iterable[ResultRow]) -> pd.DataFrame:
    """Rows, in their order, as a frame with exactly the columns and types of RESULT_COLUMNS."""
    return block_frame([Block({}, list(rows))])


def block_frame(blocks: Sequence[Block]) -> pd.DataFrame:
    """The rows of blocks, in their order, likewise; what a row says goes before what its block says."""
    unknown = {key for block in blocks for row in (block.common, *block.rows) for key in row} - RESULT_COLUMNS.keys()
    if unknown:
        raise KeyError(f"not in RESULT_COLUMNS: {sorted(unknown)}")
    own = {key for block in blocks for row in block.rows for key in row}
    owner = np.repeat(np.arange(len(blocks)), [len(block.rows) for block in blocks])
    columns: dict[str, pd.Series[Any]] = {}
    for name, kind in RESULT_COLUMNS.items():
        if name in own:
            values = [row.get(name, block.common.get(name)) for block in blocks for row in block.rows]
            columns[name] = series(name, kind, values)
        else:
            per_block = series(name, kind, [block.common.get(name) for block in blocks])
            columns[name] = per_block.take(owner).reset_index(drop=True)
    return pd.DataFrame(columns)


def series(name: str, column: Column, values: Any) -> pd.Series[Any]:
    """A column. Raises StoreError for a value that it cannot hold, as a record of another hand may have."""
    try:
        return pd.Series(values, dtype=column.dtype)
    except (OverflowError, TypeError, ValueError) as error:
        largest = max((v for v in values if isinstance(v, int)), key=abs, default=None)
        which = f" (among them {largest})" if isinstance(error, OverflowError) else ""
        raise StoreError(
            f"the column {name} of results.csv cannot hold what the runs' records have{which}: {error}. Delete the run "
            "whose record has it"
        ) from error


def result_rows(frame: pd.DataFrame) -> list[ResultRow]:
    """The rows of a frame of `result_frame` as plain values."""
    known = frame.astype(object).where(frame.notna(), None)
    return [cast("ResultRow", record) for record in known.to_dict("records")]
