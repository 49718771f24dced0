"""What charts show of an arm on a test: the mean over its calibration draws, with an interval."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from quantbench.report.axes import AXES, BITS

KEYS = ["sweep", "model", "scale", "full_precision", "recipe", "calibration", "data_free", "task", "protocol", "metric"]
"""Equal for the runs of one arm on one test: they differ in draw, seed and replicate."""

MeanKey = tuple[frozenset[str], str, str, str]
"""Run ids of an arm, task, protocol and metric."""

Means = Mapping[MeanKey, tuple[float, float, float]]
"""Mean over draws, and its 95 % interval over draws and clusters of items."""

FIRST = {
    **dict.fromkeys(("calib", "distribution", "relation", "status", "error", "unit", "higher_is_better"), "first"),
    **dict.fromkeys(("n_clusters", "value_low", "value_high", "bits_model"), "first"),
}


def arm_values(results: pd.DataFrame, means: Means) -> pd.DataFrame:
    """One row for each arm, test and metric, in the order of the results.

    results  frame of `collate`, with the columns `recipe` and `calibration`: names
    means    of the arms that have several draws; an arm that is not there has no interval

    value, low, high  mean over the draws, and its 95 % interval; NaN where nothing was scored, or there is none
    draws             how many have a value
    bits, bits_model  bits per quantized weight; per parameter
    tokens            calibrated on, per draw
    runs              run ids, joined by spaces
    modelled_..., measured_...  other costs, where the results have them
    """
    other_costs = [axis.column for axis in AXES.values() if axis is not BITS and axis.column in results]
    scored_first = results.assign(scored=results["value"].notna()).sort_values("scored", ascending=False, kind="stable")
    order = {key: index for index, key in enumerate(results.groupby(KEYS, sort=False, dropna=False).groups)}
    groups = scored_first.groupby(KEYS, sort=False, dropna=False)
    found = groups.agg(
        FIRST | {"value": "mean", "effective_bits": "mean", "calib_tokens": "mean"} | dict.fromkeys(other_costs, "mean")
    )
    scored = results[results["value"].notna()].groupby(KEYS, sort=False, dropna=False)["run_id"]
    every = results[results["run_id"].notna()].groupby(KEYS, sort=False, dropna=False)["run_id"]
    found["draws"] = scored.nunique()
    found["runs"] = every.agg(_joined)
    found.loc[found["draws"] > 0, "runs"] = scored.agg(_joined)
    found = found.loc[sorted(found.index, key=lambda key: order[key])].reset_index()
    renamed = {"effective_bits": "bits", "calib_tokens": "tokens", "n_clusters": "clusters"}
    found = found.rename(columns=renamed | {"value_low": "low", "value_high": "high"})
    found = found.assign(draws=found["draws"].fillna(0).astype(int), runs=found["runs"].fillna("").astype(str))
    numbers = ["value", "low", "high", "bits", "bits_model", "tokens", *other_costs]
    found = found.assign(**{name: found[name].to_numpy(np.float64, na_value=np.nan) for name in numbers})
    return _with_means(found, means)


def _joined(runs: pd.Series[str]) -> str:
    return " ".join(dict.fromkeys(runs))


def _with_means(found: pd.DataFrame, means: Means) -> pd.DataFrame:
    """Arms of several draws: what one of them says of its interval is not that of their mean."""
    several = found["draws"] > 1
    rows = found.loc[several, ["runs", "task", "protocol", "metric", "value"]].itertuples(index=False)
    told = [
        means.get((frozenset(runs.split()), task, protocol, metric), (value, np.nan, np.nan))
        for runs, task, protocol, metric, value in rows
    ]
    if told:
        found.loc[several, ["value", "low", "high"]] = np.array(told, dtype=np.float64)
    return found
