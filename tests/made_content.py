"""Made-up content of any size: the frames that a report is made of, without a store or a model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from quantbench.report.columns import DATA_FREE, ResultRow, result_frame
from quantbench.report.page.content import Content, RunEntry
from quantbench.report.page.values import Means

TEXTS = ("code", "news", "wiki")
LOSS = {"rtn": 0.30, "gptq": 0.20, "awq": 0.15}
BITS = {"rtn": 4.31, "gptq": 4.31, "awq": 4.5}


@cache
def content(
    recipes: Sequence[str] = ("rtn", "gptq", "awq"), calibs: Sequence[str] = TEXTS, draws: int = 3, sizes: int = 1
) -> Content:
    """A sweep of recipes x calibration sets x draws (x sizes), each tested on TEXTS; `rtn` reads no data."""
    random = np.random.default_rng(0)
    runs = list(_runs(recipes, calibs, draws, sizes))
    rows = [row for run in runs for row in _rows(run, random)]
    results = result_frame(rows)
    recipes = results["quantizer"].where(~results["full_precision"], "full precision").tolist()
    calibrations = (results["calib"] + " " + results["calib_variant"]).str.strip().tolist()
    results = results.assign(recipe=recipes, calibration=calibrations)
    return Content(
        sweeps=["made_up"],
        results=results,
        comparisons=_comparisons(results, random),
        layers=pd.DataFrame([layer for run in runs for layer in _layers(run, random)]),
        costs=pd.DataFrame([_cost(run, random) for run in runs if run["recipe"] != "none"]),
        sentences=["On code, gptq loses 0.12 nats/token more than awq (95 % [0.05, 0.19])."],
        runs=[
            RunEntry(
                run_id=run["run_id"],
                sweep="made_up",
                recipe="full precision" if run["recipe"] == "none" else run["recipe"],
                calibration=run["calib"] or "",
                settings=f"rounding={run['recipe']}",
                status="done",
                command=f"python -m quantbench quantizer={run['recipe']}",
            )
            for run in runs
        ],
        means=_means(results),
        facts={"model": "tiny", "scale": "quick"},
    )


def _runs(recipes: Sequence[str], calibs: Sequence[str], draws: int, sizes: int) -> Iterator[dict[str, Any]]:
    yield {"run_id": "full", "recipe": "none", "calib": None, "draw": None, "size": 0}
    for recipe in recipes:
        if recipe == "rtn":
            yield {"run_id": "rtn", "recipe": recipe, "calib": None, "draw": None, "size": 0}
            continue
        for calib, draw, size in itertools.product(calibs, range(draws), range(sizes)):
            run_id = f"{recipe}-{calib}-{draw}-{size}"
            yield {"run_id": run_id, "recipe": recipe, "calib": calib, "draw": draw, "size": size}


def _rows(run: dict[str, Any], random: np.random.Generator) -> Iterator[ResultRow]:
    full = run["recipe"] == "none"
    for text in TEXTS:
        away = 0.0 if run["calib"] in (text, None) else 0.08
        loss = 0.0 if full else LOSS.get(run["recipe"], 0.25) + away + 0.01 * random.normal() + 0.03 / (1 + run["size"])
        for metric, value in (("perplexity", 20 * np.exp(loss)), ("kl", loss), ("acc", 0.7 - 0.2 * loss)):
            if full and metric == "kl":
                continue
            yield ResultRow(
                sweep="made_up",
                model="tiny",
                calib=run["calib"] or DATA_FREE,
                calib_variant=f"n={16 * 4 ** run['size']}" if run["calib"] and run["size"] else "",
                quantizer=run["recipe"],
                variant="",
                full_precision=full,
                data_free=run["calib"] is None,
                scale="quick",
                seed=0,
                draw=run["draw"],
                run_id=run["run_id"],
                status="done",
                task=text,
                distribution=text,
                relation="in-distribution" if run["calib"] == text else "near OOD",
                protocol=text * 8,
                metric=metric,
                value=float(value),
                stderr=0.02 * float(value) + 0.001,
                value_low=0.95 * float(value),
                value_high=1.05 * float(value),
                n_clusters=12,
                n=30,
                unit={"perplexity": "per token", "kl": "nats/token", "acc": "share of items"}[metric],
                higher_is_better=metric == "acc",
                effective_bits=16.0 if full else BITS.get(run["recipe"], 4.25),
                calib_tokens=None if run["calib"] is None else 8192 * 4 ** run["size"],
            )


def _means(results: pd.DataFrame) -> Means:
    """Means over draws with an interval of their range."""
    found: Means = {
        (frozenset(own["run_id"]), str(task), str(protocol), str(metric)): (
            own["value"].mean(),
            own["value"].min(),
            own["value"].max(),
        )
        for (_, task, protocol, metric), own in results.groupby(["recipe", "task", "protocol", "metric"])
        for _, own in own.groupby("calibration")
        if len(own) > 1
    }
    return found


def _comparisons(results: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """Every calibrated arm against full precision, against the arm of the test's own text, and against rtn."""
    rows = []
    keys = ["quantizer", "calib", "task", "metric"]
    arms = dict(iter(results.groupby(keys, sort=False)))
    for (recipe, calib, task, metric), own in arms.items():
        if recipe == "none":
            continue
        others = [
            ("full precision", ("none", DATA_FREE, task, metric)),
            ("recipe", ("rtn", DATA_FREE, task, metric)),
            ("transfer gap", (recipe, task, task, metric)),
        ]
        for kind, key in others:
            other = arms.get(key)
            if other is not None and key != (recipe, calib, task, metric):
                rows.append(_comparison(kind, own, other, random))
    return pd.DataFrame(rows)


def _comparison(kind: str, own: pd.DataFrame, other: pd.DataFrame, random: np.random.Generator) -> dict[str, Any]:
    first, reference = own.iloc[0], other.iloc[0]
    value, against = float(own["value"].mean()), float(other["value"].mean())
    difference = value - against
    stderr = abs(difference) * float(random.choice([0.1, 0.2, 1.5])) + 0.001
    low, high = difference - 2 * stderr, difference + 2 * stderr
    decided = (low > 0) == (high > 0)
    worse = (difference > 0) != bool(first["higher_is_better"])
    one_draw = len(own) == 1 and not first["data_free"]
    verdict = "undecided" if not decided or one_draw else "worse" if worse else "better"
    return {
        **{name: first[name] for name in ("sweep", "model", "scale", "metric", "unit", "higher_is_better", "task")},
        **{name: first[name] for name in ("protocol", "distribution", "relation", "calib")},
        "kind": kind,
        "recipe": first["quantizer"],
        "reference_recipe": reference["quantizer"],
        "reference_calib": reference["calib"],
        "run_ids": " ".join(own["run_id"]),
        "reference_run_ids": " ".join(other["run_id"]),
        "n_clusters": 12,
        "n_draws": len(own),
        "value": value,
        "reference_value": against,
        "difference": difference,
        "low": low,
        "high": high,
        "p_holm": 0.01 if decided else 0.4,
        "detectable": 2.8 * stderr,
        "verdict": verdict,
        "reliable": True,
        "note": "this draw only" if one_draw else "",
    }


def _layers(run: dict[str, Any], random: np.random.Generator) -> Iterator[dict[str, Any]]:
    for block, name in itertools.product(range(6 if run["recipe"] != "none" else 0), ("attn.q", "attn.o", "mlp.down")):
        yield {
            "sweep": "made_up",
            "run_id": run["run_id"],
            "recipe": run["recipe"],
            "calib": run["calib"] or DATA_FREE,
            "draw": run["draw"],
            "layer": f"model.layers.{block}.{name}",
            "relative_loss": float(0.01 * (block + 1) * np.exp(0.2 * random.normal())),
            "bits_per_weight": 4.31,
        }


def _cost(run: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
    return {
        "sweep": "made_up",
        "calib": run["calib"] or DATA_FREE,
        "quantizer": run["recipe"],
        "variant": "",
        "run_id": run["run_id"],
        "what": "quantize",
        "environment": "one",
        "cpu_seconds": float(20 + 50 * random.random()),
        "peak_memory_bytes": float(2**30 * (1 + random.random())),
    }
