"""What charts show of an arm on a test: the mean over its calibration draws, with an interval, from results.csv."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from quantbench.metrics.errors import Error, Source
from quantbench.report.columns import DATA_FREE

KEYS = [
    *("sweep", "model", "scale", "full_precision", "quantizer", "variant", "calib", "calib_variant", "data_free"),
    *("task", "protocol", "metric"),
]
"""Equal for the runs of one arm on one test: they differ in draw, seed and replicate."""


def arm_values(results: pd.DataFrame) -> pd.DataFrame:
    """One row for each arm, test and metric of the frame of `collate`, in its order.

    recipe, calibration  names
    value, low, high     mean over the draws, and its 95 % interval; missing where nothing was scored
    draws, clusters      how many
    bits, bits_model     bits per quantized weight; per parameter
    tokens               calibrated on, per draw
    runs                 run ids, joined by spaces
    """
    rows = [
        _row(dict(zip(KEYS, key, strict=True)), own) for key, own in results.groupby(KEYS, sort=False, dropna=False)
    ]
    columns = [*KEYS, "recipe", "calibration", "distribution", "relation", "status", "error", "unit"]
    columns += ["higher_is_better", "value", "low", "high", "draws", "clusters", "bits", "bits_model", "tokens", "runs"]
    return pd.DataFrame(rows, columns=columns)


def _row(key: dict[str, Any], own: pd.DataFrame) -> dict[str, Any]:
    scored = own[own["value"].notna()]
    first = (scored if len(scored) else own).iloc[0]
    value = float(scored["value"].mean()) if len(scored) else math.nan
    low, high = _interval(scored, value)
    runs = dict.fromkeys(str(run) for run in (scored if len(scored) else own)["run_id"].dropna())
    return key | {
        "recipe": recipe_name(first),
        "calibration": calibration_name(first),
        "distribution": first["task"] if pd.isna(first["distribution"]) else first["distribution"],
        **{name: _known(first[name]) for name in ("relation", "status", "error", "unit", "higher_is_better")},
        "value": value,
        "low": low,
        "high": high,
        "draws": len(runs) if len(scored) else 0,
        "clusters": _clusters(first),
        "bits": _number(first["effective_bits"]),
        "bits_model": _number(first.get("bits_model")),
        "tokens": _number(first["calib_tokens"]),
        "runs": " ".join(runs),
    }


def recipe_name(row: Any) -> str:
    """A recipe: its option, and what of it differs within the sweep."""
    if row["full_precision"]:
        return "full precision"
    return " ".join(part for part in (row["quantizer"], row["variant"]) if part)


def calibration_name(row: Any) -> str:
    """What a recipe was calibrated on."""
    if row["data_free"]:
        return DATA_FREE
    return " ".join(part for part in (row["calib"], row["calib_variant"]) if part)


def _interval(scored: pd.DataFrame, mean: float) -> tuple[float, float]:
    """95 % over clusters of items and, where there are several, over draws.

    The spread of the draws holds what is left when draws and clusters are taken out, and so does the error of each over
    clusters: added up, the interval is a little too wide, never too narrow.
    """
    errors = scored["stderr"].dropna().astype(float)
    if len(scored) == 0 or len(errors) < len(scored):
        return math.nan, math.nan
    n = _clusters(scored.iloc[0]) or _number(scored["n"].iloc[0])
    items = Source(math.sqrt(float((errors**2).mean())), max(n, 2) - 1)
    if len(scored) == 1:
        low, high = (_number(scored.iloc[0].get(name)) for name in ("value_low", "value_high"))
        return (low, high) if math.isfinite(low) else Error((items,)).interval(mean)
    spread = float(scored["value"].astype(float).std(ddof=1)) / math.sqrt(len(scored))
    return Error((Source(spread, len(scored) - 1), items)).interval(mean)


def _clusters(row: Any) -> int:
    found = _number(row.get("n_clusters"))
    return int(found) if math.isfinite(found) else 0


def _number(value: Any) -> float:
    return math.nan if value is None or pd.isna(value) else float(value)


def _known(value: Any) -> Any:
    return None if pd.isna(value) else value
