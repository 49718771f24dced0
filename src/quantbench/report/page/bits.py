"""Bits against loss, with the front: what no other arm beats in both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from quantbench.core.lazy import lazy_module
from quantbench.report.page.figure import Figure, in_order, named, slug, tooltip
from quantbench.report.page.losses import task_names
from quantbench.report.page.style import OPEN, colours, finished, shapes

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_module("altair")

KEPT = ["recipe", "calibration", "test", "value", "low", "high", "bits", "bits_model", "draws", "on_front", "runs"]
WIDE = 20.0
"""Ratio of the largest to the smallest value above which the axis is logarithmic."""


def bits_chart(values: pd.DataFrame, metric: str) -> Figure | None:
    """A panel for each test; None unless arms of two or more bit widths have the metric.

    values  rows of `arm_values` of one model and scale
    """
    own = values[(values["metric"] == metric) & ~values["full_precision"]]
    own = own[own["value"].notna() & own["bits"].notna()]
    if own["bits"].round(2).nunique() < 2:
        return None
    higher = bool(own["higher_is_better"].iloc[0])
    names = task_names(own)
    frame = own.assign(test=[names[str(task)] for task in own["task"]], on_front=False)
    for _, group in frame.groupby("test", sort=False):
        frame.loc[front(group, higher), "on_front"] = True
    words = [
        f"Effective bits per quantized weight, everything stored counted, against {metric}; bars are 95 % intervals.",
        f"The line joins the arms of {'highest' if higher else 'lowest'} {metric} among those of at most their bits. "
        "An arm whose bar reaches the line may be as good as those on it.",
    ]
    shown = frame[KEPT]
    return Figure(
        slug(metric, "bits"),
        "Bits against loss",
        words,
        shown,
        finished(_chart(shown, metric), words[0], shown),
    )


def front(group: pd.DataFrame, higher_is_better: bool) -> list[object]:
    """The labels of the rows that no other row beats: none has at most the bits and a better value."""
    ordered = group.assign(loss=-group["value"] if higher_is_better else group["value"]).sort_values(["bits", "loss"])
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


def _chart(frame: pd.DataFrame, metric: str) -> alt.FacetChart:
    recipes = in_order(frame["recipe"])
    y = alt.Y("value:Q", title=metric, scale=value_scale(frame))
    x = alt.X("bits:Q", title="bits per quantized weight", scale=alt.Scale(zero=False, padding=12))
    base = alt.Chart().encode(x=x, tooltip=tooltip(KEPT, frame), href=alt.Href("href:N"))
    line = (
        alt.Chart()
        .transform_filter("datum.on_front")
        .mark_line(interpolate="step-after", color=OPEN, strokeDash=[5, 3])
        .encode(x=x, y=y)
    )
    bar = base.mark_rule(strokeWidth=1.2).encode(y=alt.Y("low:Q", title=metric), y2="high:Q", color=colours(recipes))
    point = base.mark_point(filled=True, size=70, opacity=0.9).encode(
        y=y, color=colours(recipes), shape=shapes(recipes)
    )
    layered = alt.layer(line, bar, point, data=named()).properties(width=280, height=240)
    return layered.facet(facet=alt.Facet("test:N", title=None, sort=sorted(set(frame["test"]))), columns=3)
