"""The frames of the heat maps: losses against full precision, and transfer gaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from quantbench.metrics import metrics
from quantbench.metrics.verdict import Verdict
from quantbench.report.columns import DATA_FREE
from quantbench.report.comparison_columns import FULL_PRECISION, GAP, ONE_DRAW
from quantbench.report.digits import rounded
from quantbench.report.evidence import VERDICT_MARKS
from quantbench.report.page.figure import Figure, rows_of, slug
from quantbench.report.page.heat import UNKNOWN, heat_map, state

MARK_WORDS = ", ".join(f"{mark} {word}" for word, mark in VERDICT_MARKS.items()) + ", after Holm's correction."


def task_names(frame: pd.DataFrame) -> dict[str, str]:
    """Each task's name in a chart: its distribution, or the task where two tasks share one."""
    pairs = frame[["task", "distribution"]].drop_duplicates("task")
    names = {str(t): str(t if pd.isna(d) else d) for t, d in zip(pairs["task"], pairs["distribution"], strict=True)}
    several = list(names.values())
    return {task: name if several.count(name) == 1 else task for task, name in names.items()}


def arm_name(recipe: object, calibration: object) -> str:
    """A recipe and what it was calibrated on, as an axis names it."""
    return str(recipe) if calibration in (DATA_FREE, "") else f"{recipe} ← {calibration}"


def loss_map(values: pd.DataFrame, comparisons: pd.DataFrame, metric: str) -> Figure | None:
    """Losses of every arm on every test; None where the metric has no arms.

    values       rows of `arm_values` of one model and scale
    comparisons  of the same; those of full precision give differences, intervals and verdicts
    A metric that is a comparison with full precision in itself is shown as it is.
    """
    own = values[(values["metric"] == metric) & ~values["full_precision"]]
    if own.empty:
        return None
    relative = metrics.is_relative(metric)
    known = _by_arm(comparisons[comparisons["kind"] == FULL_PRECISION])
    names = task_names(own)
    rows = [_loss(row, None if relative else known.get(_key(row)), names) for row in rows_of(own)]
    if relative:
        words = f"{metric} from full precision of each recipe (rows) on each test text (columns)."
    else:
        words = f"Change of {metric} from full precision by each recipe (rows) on each test text (columns)."
    title = f"{'Divergence' if relative else 'Change'} from full precision"
    said = [words] if relative else [words, MARK_WORDS]
    said.append("* calibrated on the test's own distribution.")
    frame = pd.DataFrame(rows)
    return heat_map(slug(metric, "losses"), frame, title, metric, said, not relative)


def gap_map(comparisons: pd.DataFrame, metric: str) -> Figure | None:
    """What each recipe loses by not being calibrated on the test's own text; None where there is no such pair."""
    own = comparisons[(comparisons["kind"] == GAP) & (comparisons["metric"] == metric)]
    if own.empty:
        return None
    names = task_names(own)
    rows = [
        {
            "row": arm_name(row["recipe"], row["calib"]),
            "test": names[str(row["task"])],
            "recipe": row["recipe"],
            "calibration": row["calib"],
            **_difference(row),
        }
        for row in rows_of(own)
    ]
    words = [
        f"Transfer gap in {metric}: the score on a test text (columns) when calibrated on another text (behind the "
        "arrow) minus the score of the same recipe when calibrated on the test's own text. Vermilion is a loss.",
        MARK_WORDS,
    ]
    return heat_map(slug(metric, "gaps"), pd.DataFrame(rows), "Transfer gap", f"gap in {metric}", words, True)


def _by_arm(comparisons: pd.DataFrame) -> Mapping[tuple[str, ...], dict[str, Any]]:
    return {_key(row, "run_ids"): row for row in rows_of(comparisons)}


def _key(row: Mapping[str, Any], runs: str = "runs") -> tuple[str, ...]:
    return (" ".join(sorted(str(row[runs]).split())), str(row["task"]), str(row["protocol"]), str(row["metric"]))


def _loss(row: Mapping[str, Any], found: Mapping[str, Any] | None, names: Mapping[str, str]) -> dict[str, Any]:
    star = "*" if row["relation"] == "in-distribution" else ""
    common = {
        "row": arm_name(row["recipe"], row["calibration"]),
        "test": names[str(row["task"])],
        **{name: row[name] for name in ("recipe", "calibration", "relation", "status", "value", "draws")},
    }
    if found is not None:
        told = _difference(found)
        return common | told | {"shown": f"{told['shown']}{star}"}
    scored = not pd.isna(row["value"])
    shown = f"{rounded(row['value'], _half(row))}{star}" if scored else str(row["status"]).upper()
    one_draw = row["draws"] == 1 and not row["data_free"]
    return common | {
        "shown": shown,
        "amount": row["value"] if scored and metrics.is_relative(str(row["metric"])) else None,
        "low": row["low"],
        "high": row["high"],
        "state": state(row["low"], row["high"], one_draw) if metrics.is_relative(str(row["metric"])) else UNKNOWN,
        "higher_is_better": row["higher_is_better"],
        "runs": row["runs"],
    }


def _difference(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a comparison's cell."""
    low, high, difference = (_number(row[name]) for name in ("low", "high", "difference"))
    one_draw = ONE_DRAW in str(row["note"])
    verdict = str(row["verdict"])
    return {
        "shown": f"{rounded(difference, _half(row), signed=True)} {VERDICT_MARKS[Verdict(verdict)]}",
        "amount": difference,
        "difference": difference,
        "low": low,
        "high": high,
        "verdict": verdict,
        "p_holm": _number(row["p_holm"]),
        "state": state(low, high, one_draw),
        "draws": row["n_draws"],
        "higher_is_better": row["higher_is_better"],
        "runs": row["run_ids"],
    }


def _half(row: Mapping[str, Any]) -> float | None:
    """About a standard error, for rounding: a quarter of the interval."""
    low, high = _number(row["low"]), _number(row["high"])
    return (high - low) / 4 if high > low else None


def _number(value: Any) -> float:
    return float("nan") if value is None or pd.isna(value) else float(value)
