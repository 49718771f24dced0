"""Phrases for one comparison: what is compared, where, by how much, and on what evidence.

A comparison is a row of comparisons.csv as plain values: None is "not known" or "does not apply".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from quantbench.metrics.errors import POWER
from quantbench.report.columns import DATA_FREE
from quantbench.report.comparison_columns import FULL_PRECISION, GAP, ONE_DRAW
from quantbench.report.digits import rounded

Row = Mapping[str, Any]

INTERVAL_ERRORS = 4
"""Standard errors that a 95 % interval is about wide: decides the digits of its ends."""


def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame of comparisons as plain values."""
    known = frame.astype(object).where(frame.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in known.to_dict("records")]


def subject(recipe: str, calib: str) -> str:
    """A recipe and what it was calibrated on: "gptq calibrated on wiki"; a data-free one alone."""
    return recipe if calib in {"", DATA_FREE} else f"{recipe} calibrated on {calib}"


def sides(row: Row) -> tuple[str, str]:
    """What is compared with what, each once: "gptq calibrated on code", "calibrated on wiki"."""
    candidate = subject(row["recipe"], row["calib"])
    if row["kind"] == FULL_PRECISION:
        return candidate, FULL_PRECISION
    if row["kind"] == GAP:
        return candidate, f"calibrated on {row['reference_calib']}"
    if row["calib"] == row["reference_calib"]:
        return candidate, row["reference_recipe"]
    return candidate, subject(row["reference_recipe"], row["reference_calib"])


def place(row: Row) -> str:
    """Where it was measured: the test distribution, or the task where two tasks share one (`with_places`)."""
    return str(row.get("place") or row["distribution"] or row["task"])


def with_places(rows: Sequence[Row]) -> list[Row]:
    """The rows, with the task as their place wherever several tasks have one test distribution."""
    tasks: dict[str | None, set[str]] = {}
    for row in rows:
        tasks.setdefault(row["distribution"], set()).add(row["task"])
    return [{**row, "place": row["task"]} if len(tasks[row["distribution"]]) > 1 else row for row in rows]


def is_ratio(row: Row) -> bool:
    """Whether the metric is tested on its logarithm, so that a ratio with an interval says how much."""
    return row["ratio"] is not None


def amount(row: Row, *, named: bool = True) -> str:
    """By how much: "kl 0.120 nats/token higher", "perplexity 3.1 % higher", "acc 0.050 lower".

    named: whether the metric is said.
    """
    name = f"{row['metric']} " if named else ""
    words = difference(row)
    if row["difference"] == 0 or not words:
        return f"{name}{'the same' if words else 'of unknown size'}"
    unit = "" if is_ratio(row) else unit_of(row)
    return f"{name}{words[1:]}{unit} {'higher' if row['difference'] > 0 else 'lower'}"


def difference(row: Row) -> str:
    """The difference with its sign, as precise as its interval: "+0.120", of a logarithm "+3.10 %"; "" if unknown."""
    if row["difference"] is None:
        return ""
    if is_ratio(row):
        return f"{_signed(100 * (row['ratio'] - 1), _percents(row))} %"
    return _signed(row["difference"], (row["low"], row["high"]))


def unit_of(row: Row) -> str:
    """The unit behind a number, "" where the metric is a plain share or mean."""
    unit = row["unit"] or ""
    return "" if not unit or " " in unit else f" {unit}"


def interval(row: Row) -> str:
    """The 95 % interval of the difference, "" where there is none: "95 % [0.050, 0.190]"."""
    ends = _percents(row) if is_ratio(row) else (row["low"], row["high"])
    if None in ends:
        return ""
    low, high = (_signed(end, ends) for end in ends if end is not None)
    percent = " %" if is_ratio(row) else ""
    return f"95 % [{low}{percent}, {high}{percent}]"


def evidence(row: Row) -> str:
    """Interval, draws and clusters in brackets, with the space before: what the word rests on."""
    found = [interval(row), draws_of([row]), clusters_of([row])]
    told = ", ".join(part for part in found if part)
    return f" ({told})" if told else ""


def draws_of(rows: Sequence[Row]) -> str:
    """How many calibration draws: "3 draws", "2 to 3 draws", "this draw only"; "" where nothing is drawn."""
    if any(is_one_draw(row) for row in rows):
        return ONE_DRAW if all(is_one_draw(row) for row in rows) else ""
    most = [max(row["n_draws"] or 0, row["n_reference_draws"] or 0) for row in rows]
    return _span([one for one in most if one > 1], "draws")


def clusters_of(rows: Sequence[Row]) -> str:
    """How many clusters of test items."""
    return _span([row["n_clusters"] for row in rows if row["n_clusters"] is not None], "clusters")


def is_one_draw(row: Row) -> bool:
    """Whether the comparison holds for one calibration draw only."""
    return ONE_DRAW in (row["note"] or "")


def margin_of(row: Row) -> str:
    """The margin of equivalence, in the unit of the test: "0.01 nats/token"."""
    return on_test_scale(row, row["margin"])


def detectable_of(rows: Sequence[Row]) -> str:
    """What differences the tests find, "this test alone finds a difference of 0.030 nats/token with power 0.8".

    "" where it is not known. Alone: before a correction for many comparisons.
    """
    known = sorted(row["detectable"] for row in rows if row["detectable"] is not None)
    if not known:
        return ""
    ends = [on_test_scale(rows[0], end) for end in (known[0], known[-1])]
    span = ends[0] if ends[0] == ends[1] else " to ".join(ends)
    tests = "this test alone finds a difference" if len(rows) == 1 else "each of these tests alone finds a difference"
    return f"{tests} of {span} with power {POWER:.2g}"


def on_test_scale(row: Row, value: float) -> str:
    """A size in the unit of the tests, "0.03 nats/token"; of a logarithm as percents, "3 %"."""
    if is_ratio(row):
        percent = 100 * math.expm1(value)
        return f"{percent:.2g} %" if percent < 99.5 else f"{percent:,.0f} %"
    return f"{value:.2g}{unit_of(row)}"


def listed(words: Iterable[str]) -> str:
    """Words as in a sentence: a, b and c."""
    several = list(words)
    return several[0] if len(several) == 1 else f"{', '.join(several[:-1])} and {several[-1]}"


def _percents(row: Row) -> tuple[float | None, float | None]:
    low, high = row["ratio_low"], row["ratio_high"]
    return None if low is None else 100 * (low - 1), None if high is None else 100 * (high - 1)


def _signed(change: float, ends: tuple[float | None, float | None]) -> str:
    return rounded(change, _width(ends), signed=True)


def _width(ends: tuple[float | None, float | None]) -> float | None:
    low, high = ends
    return None if low is None or high is None else (high - low) / INTERVAL_ERRORS


def _span(numbers: Sequence[int], word: str) -> str:
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    return f"{low} {word if low != 1 else word.removesuffix('s')}" if low == high else f"{low} to {high} {word}"
