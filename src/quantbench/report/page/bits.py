"""Cost against loss, with the front: what no other arm beats in both. Cost is bits, or what a roofline models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from quantbench.core.lazy import lazy_module
from quantbench.report.axes import BITS, Axis
from quantbench.report.comparison_columns import RECIPE
from quantbench.report.page.figure import Figure, in_order, named, slug, tooltip
from quantbench.report.page.losses import task_names
from quantbench.report.page.style import OPEN, colours, finished, shapes
from quantbench.report.pareto import behind_by
from quantbench.report.wording import plain

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_module("altair")

KEPT = [
    "recipe",
    "calibration",
    "test",
    "value",
    "low",
    "high",
    "bits",
    "bits_model",
    "draws",
    "on_front",
    "behind",
    "runs",
]
WIDE = 20.0
"""Ratio of the largest to the smallest value above which the axis is logarithmic."""


def cost_chart_of(
    values: pd.DataFrame, comparisons: pd.DataFrame, metric: str, axis: Axis = BITS, *, asked: bool = False
) -> Figure | None:
    """A panel for each test; None unless arms of two or more costs have the metric.

    values       rows of `arm_values` of one model and scale
    comparisons  of the same: what they put behind another arm is grey
    asked        one cost is enough
    """
    column = "bits" if axis is BITS else axis.column
    if column not in values:
        return None
    own = values[(values["metric"] == metric) & ~values["full_precision"]]
    own = own[own["value"].notna() & own[column].notna()]
    if own.empty or (own[column].map("{:.3g}".format).nunique() < 2 and not asked):
        return None
    higher = bool(own["higher_is_better"].iloc[0])
    names = task_names(own)
    frame = own.assign(
        test=[names[str(task)] for task in own["task"]],
        on_front=False,
        behind=_behind(own, comparisons, metric, column),
    )
    for _, group in frame.groupby("test", sort=False):
        frame.loc[front(group, higher, column), "on_front"] = True
    words = [
        f"{_WORDS.get(axis.name, axis.title)} against {metric}; bars are 95 % intervals.",
        f"The line joins the arms of {'highest' if higher else 'lowest'} {metric} among those of at most their cost. "
        "An arm whose bar reaches the line may be as good as those on it. Grey: a comparison shows another that costs "
        "no more to be better, or one that costs less to be equivalent.",
    ]
    shown = frame[KEPT if axis is BITS else [*KEPT[:6], column, *KEPT[6:]]]
    return Figure(
        slug(metric, axis.name),
        f"{axis.head} against loss",
        words,
        shown,
        finished(_chart(shown, metric, column, axis.title), words[0], shown),
    )


_WORDS = {
    "bits": "Effective bits per quantized weight, everything stored counted,",
    "bytes": "Bytes of all weights, scales counted and what is not quantized in 16 bits,",
    "modelled_decode_ms": "Milliseconds for one token of each sequence, modelled,",
    "modelled_prefill_ms": "Milliseconds until the first token, modelled,",
    "measured_decode_ms": "Milliseconds for one token of each sequence, measured,",
    "measured_prefill_ms": "Milliseconds until the first token, measured,",
}


def _behind(own: pd.DataFrame, comparisons: pd.DataFrame, metric: str, column: str) -> list[bool]:
    """Whether a comparison puts an arm behind another on its test."""
    costs = {run: cost for runs, cost in zip(own["runs"], own[column], strict=True) for run in str(runs).split()}
    pairs = comparisons[(comparisons["kind"] == RECIPE) & (comparisons["metric"] == metric)]
    found = {(row["task"], run) for row in plain(pairs) for side in behind_by(row, costs) for run in row[side].split()}
    return [
        any((task, run) in found for run in str(runs).split())
        for task, runs in zip(own["task"], own["runs"], strict=True)
    ]


def front(group: pd.DataFrame, higher_is_better: bool, column: str = "bits") -> list[object]:
    """The labels of the rows that no other row beats: none has at most the cost and a better value."""
    ordered = group.assign(loss=-group["value"] if higher_is_better else group["value"]).sort_values([column, "loss"])
    best = float("inf")
    found = []
    for label, loss in ordered["loss"].items():
        if loss < best:
            best = loss
            found.append(label)
    return found


def value_scale(frame: pd.DataFrame) -> alt.Scale:
    """Linear, or logarithmic where the values lie far apart."""
    low, high = frame["value"].min(), frame["value"].max()
    ends = frame["low"].min()
    logarithmic = low > 0 and high / low > WIDE and not ends <= 0
    return alt.Scale(type="log") if logarithmic else alt.Scale(zero=False)


def _chart(frame: pd.DataFrame, metric: str, column: str, title: str) -> alt.FacetChart:
    recipes = in_order(frame["recipe"])
    behind, shown = alt.datum.behind, colours(recipes)
    y = alt.Y("value:Q", title=metric, scale=value_scale(frame))
    low, high = frame[column].min(), frame[column].max()
    room = alt.Scale(zero=False, padding=12)
    if high <= low * 1.001:  # one cost: an axis of no width would have the label 0
        room = alt.Scale(zero=False, domain=[0.8 * low, 1.2 * high])
    x = alt.X(f"{column}:Q", title=title, scale=room)
    base = alt.Chart().encode(x=x, tooltip=tooltip(KEPT, frame), href=alt.Href("href:N"))
    line = (
        alt.Chart()
        .transform_filter("datum.on_front")
        .mark_line(interpolate="step-after", color=OPEN, strokeDash=[5, 3])
        .encode(x=x, y=y)
    )
    bar = base.mark_rule(strokeWidth=1.2).encode(
        y=alt.Y("low:Q", title=metric), y2="high:Q", color=alt.condition(behind, alt.value(OPEN), shown)
    )
    point = base.mark_point(filled=True, size=70).encode(
        y=y,
        color=alt.condition(behind, alt.value(OPEN), shown),
        shape=shapes(recipes),
        opacity=alt.condition(behind, alt.value(0.45), alt.value(0.9)),
    )
    layered = alt.layer(line, bar, point, data=named()).properties(width=280, height=240)
    return layered.facet(facet=alt.Facet("test:N", title=None, sort=sorted(set(frame["test"]))), columns=3)
