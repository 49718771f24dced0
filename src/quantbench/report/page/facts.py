"""What a reader must know before the first number: model, scale, tests, calibration, draws."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from quantbench.metrics import metrics


def facts(results: pd.DataFrame) -> dict[str, str]:
    """Names and texts, in order; what is not known is left out."""
    scored = results[results["value"].notna()]
    calibrated = results[~results["data_free"]]
    made = scored[~scored["data_free"]].drop_duplicates("run_id")
    draws = made.groupby(["sweep", "model", "scale", "recipe", "calibration"], sort=False).size()
    found = {
        "model": _listed(results["model"]),
        "scale": _listed(results["scale"]),
        "recipes": _listed(results.loc[~results["full_precision"], "recipe"]),
        "calibrated on": _listed(calibrated["calibration"]),
        "calibration tokens": _numbers(calibrated["calib_tokens"]),
        "draws": " to ".join(dict.fromkeys(str(n) for n in (draws.min(), draws.max()))) if len(draws) else "",
        "tests": "; ".join(_tests(scored)),
    }
    return {name: text for name, text in found.items() if text}


def _tests(scored: pd.DataFrame) -> Iterable[str]:
    for task, own in scored.groupby("task", sort=False):
        first = own.iloc[0]
        items = metrics.item_word(str(first["metric"]))
        clusters = "" if pd.isna(first["n_clusters"]) else f" in {first['n_clusters']:,d} clusters"
        yield f"{task} ({first['n']:,d} {items}{clusters})"


MOST_NAMES = 8


def _listed(values: Iterable[Any]) -> str:
    names = [str(value) for value in dict.fromkeys(values) if value is not None and not pd.isna(value) and value != ""]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _numbers(values: pd.Series[int]) -> str:
    known = sorted({int(value) for value in values.dropna()})
    return " to ".join(f"{value:,d}" for value in dict.fromkeys([*known[:1], *known[-1:]]))
