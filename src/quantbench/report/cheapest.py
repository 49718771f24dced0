"""The cheapest recipe whose loss is below a bound on all tests that a user names, in one sentence that may say: none.

A loss counts as below the bound where the upper end of its 95 % interval is; of metrics of which higher is better, the
lower end must be above it. An arm without an interval on one of the tests is not chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from quantbench.core.errors import ConfigError
from quantbench.report.axes import BITS, Axis
from quantbench.report.digits import rounded
from quantbench.report.wording import listed, subject

ARM = ["recipe", "calibration"]


@dataclass(frozen=True)
class Bound:
    """What a metric must be below, or above where higher is better."""

    metric: str
    value: float
    higher_is_better: bool

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ConfigError(f"{self.option} {self.value}: expected a finite number, in the unit of {self.metric}")

    @property
    def option(self) -> str:
        """What it is called on the command line, and in sentences."""
        return "--above" if self.higher_is_better else "--below"

    def holds(self, end: float) -> bool:
        """Whether an end of an interval is on the right side; never if it is not known."""
        return end > self.value if self.higher_is_better else end < self.value


@dataclass(frozen=True)
class Candidate:
    """An arm, its cost, and its interval on each test: value and the end that counts; NaN for what is not known."""

    name: str
    cost: float
    ends: Mapping[str, tuple[float, float]]
    draws: int
    data_free: bool

    @property
    def is_known(self) -> bool:
        """Whether it has a cost, and an interval on each test."""
        return not any(math.isnan(number) for number in (self.cost, *(end for _, end in self.ends.values())))


def cheapest(values: pd.DataFrame, tests: Mapping[str, str], bound: Bound, axis: Axis = BITS) -> str:
    """One sentence: the cheapest arm within the bound on all tests, and its worst interval; or "none", and the nearest.

    values  rows of `arm_values` of one model and scale (quantbench.report.page.values)
    tests   the tasks that count, with their names
    """
    arms = candidates(values, tests, bound, axis)
    side = "above" if bound.higher_is_better else "below"
    asked = f"{bound.metric} {side} {bound.value:g} on {listed(tests.values())}"
    known = [arm for arm in arms if arm.is_known]
    within = [arm for arm in known if all(bound.holds(end) for _, end in arm.ends.values())]
    lost = len(arms) - len(known)
    left = f" Left out, for want of an interval on each test or of a cost: {lost} of {len(arms)}." if lost else ""
    if not within:
        return f"None: no recipe is shown to have {asked} with its 95 % interval.{_nearest(known, bound)}{left}"
    least = min(arm.cost for arm in within)
    best = [arm for arm in within if math.isclose(arm.cost, least, rel_tol=1e-6)]
    told = [f"{arm.name} ({_worst(arm, bound)})" for arm in best]
    noun, verb = ("recipe", "is") if len(best) == 1 else ("recipes, at equal cost,", "are")
    one_draw = any(arm.draws == 1 and not arm.data_free for arm in best)
    note = " The intervals are over test items: another calibration draw may differ." if one_draw else ""
    return (
        f"The cheapest {noun} with {asked}, the 95 % interval included, {verb} {listed(told)}, at {least:{axis.form}} "
        f"{axis.unit}.{note}{left}"
    )


def candidates(values: pd.DataFrame, tests: Mapping[str, str], bound: Bound, axis: Axis) -> list[Candidate]:
    """The quantized arms, in the order of the values."""
    column = "bits" if axis is BITS else axis.column
    own = values[(values["metric"] == bound.metric) & ~values["full_precision"] & values["task"].isin(list(tests))]
    found = []
    for key, rows in own.groupby(ARM, sort=False, dropna=False):
        recipe, calibration = (str(part) for part in key)
        ends = {str(row["task"]): (float(row["value"]), _end(row, bound)) for _, row in rows.iterrows()}
        found.append(
            Candidate(
                name=subject(recipe, calibration),
                cost=float(rows[column].mean()),
                ends={name: ends.get(task, (math.nan, math.nan)) for task, name in tests.items()},
                draws=int(rows["draws"].max()),
                data_free=bool(rows["data_free"].iloc[0]),
            )
        )
    return found


def _end(row: Any, bound: Bound) -> float:
    """The end of the interval that must lie within the bound; NaN where it is not known."""
    return float(row["low"] if bound.higher_is_better else row["high"])


def _worst(arm: Candidate, bound: Bound) -> str:
    """The test on which the arm is closest to the bound, or farthest beyond it."""
    order = min if bound.higher_is_better else max
    name = order(arm.ends, key=lambda test: arm.ends[test][1])
    value, end = arm.ends[name]
    return f"{rounded(value, abs(end - value) / 2)} on {name}, {_extreme(bound)} {rounded(end, abs(end - value) / 2)}"


def _extreme(bound: Bound) -> str:
    return "at least" if bound.higher_is_better else "at most"


def _nearest(arms: Sequence[Candidate], bound: Bound) -> str:
    if not arms:
        return ""
    sign = -1 if bound.higher_is_better else 1
    best = min(arms, key=lambda arm: max(sign * end for _, end in arm.ends.values()))
    return f" The nearest is {best.name}: {_worst(best, bound)}."
