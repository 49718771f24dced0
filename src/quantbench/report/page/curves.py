"""How a loss moves with the amount of calibration text, and how far apart calibration draws lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from quantbench.core.lazy import lazy_module
from quantbench.report.page.bits import value_scale
from quantbench.report.page.figure import Figure, in_order, named, slug, tooltip
from quantbench.report.page.losses import arm_name, task_names
from quantbench.report.page.style import GOOD, TEXT, colours, finished, shapes
from quantbench.report.page.values import KEYS

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_module("altair")

SIZE_KEPT = ["recipe", "calib", "test", "tokens", "value", "low", "high", "draws", "runs"]
DRAW_KEPT = [
    "row",
    "test",
    "recipe",
    "calibration",
    "seed",
    "draw",
    "replicate",
    "value",
    "mean",
    "low",
    "high",
    "runs",
]
MOST_ROWS = 60


def size_chart(values: pd.DataFrame, metric: str) -> Figure | None:
    """Calibration tokens against the metric, a panel for each test and calibration set; None where no size varies.

    values  rows of `arm_values` of one model and scale
    """
    own = values[(values["metric"] == metric) & values["tokens"].notna() & values["value"].notna()]
    if own.empty:
        return None
    sizes = own.groupby(["recipe", "calib", "task"])["tokens"].transform("nunique")
    own = own[sizes > 1]
    if own.empty:
        return None
    names = task_names(own)
    frame = own.assign(test=[names[str(task)] for task in own["task"]])[SIZE_KEPT]
    words = [
        f"Tokens calibrated on against {metric}, by calibration set (rows) and test text (columns); 95 % intervals."
    ]
    recipes = in_order(frame["recipe"])
    x = alt.X("tokens:Q", title="calibration tokens", scale=alt.Scale(type="log"))
    y = alt.Y("value:Q", title=metric, scale=value_scale(frame))
    base = alt.Chart().encode(x=x, color=colours(recipes), tooltip=tooltip(SIZE_KEPT, frame), href=alt.Href("href:N"))
    bar = base.mark_rule().encode(y=alt.Y("low:Q", title=metric), y2="high:Q")
    point = base.mark_point(filled=True, size=60, opacity=0.9).encode(y=y, shape=shapes(recipes))
    layered = alt.layer(base.mark_line().encode(y=y), bar, point, data=named()).properties(width=220, height=180)
    chart = layered.facet(
        row=alt.Row("calib:N", title=None, sort=in_order(frame["calib"])),
        column=alt.Column("test:N", title=None, sort=sorted(set(frame["test"]))),
    )
    return Figure(slug(metric, "size"), "Size of the calibration set", words, frame, finished(chart, words[0], frame))


def draw_chart(results: pd.DataFrame, values: pd.DataFrame, metric: str) -> Figure | None:
    """Each calibration draw of every arm that has several, with their mean; None where none has.

    results  rows of the frame of `collate`; values: of `arm_values`; both of one model and scale
    """
    arms = values[(values["metric"] == metric) & (values["draws"] > 1)]
    if arms.empty:
        return None
    names = task_names(arms)
    means = arms.set_index(KEYS)[["value", "low", "high"]].rename(columns={"value": "mean"})
    own = results[(results["metric"] == metric).fillna(False) & results["value"].notna()].join(
        means, on=KEYS, how="inner"
    )
    frame = own.assign(
        test=[names[str(task)] for task in own["task"]],
        runs=own["run_id"],
    )
    frame["row"] = [arm_name(*pair) for pair in zip(frame["recipe"], frame["calibration"], strict=True)]
    rows = in_order(frame["row"])
    words = [
        f"{metric} of each calibration draw (small), their mean and its 95 % interval over draws and items (large)."
    ]
    if len(rows) > MOST_ROWS:
        words.append(f"The first {MOST_ROWS} of {len(rows):,d} are drawn.")
        frame = frame[frame["row"].isin(rows[:MOST_ROWS])]
    shown = frame[DRAW_KEPT]
    y = alt.Y("row:N", title=None, sort=rows)
    base = alt.Chart().encode(y=y, tooltip=tooltip(DRAW_KEPT, shown), href=alt.Href("href:N"))
    tick = base.mark_tick(color=TEXT, thickness=1.5, size=9).encode(x=alt.X("value:Q", title=metric))
    bar = base.mark_rule(color=GOOD).encode(x=alt.X("low:Q", scale=alt.Scale(zero=False)), x2="high:Q")
    point = base.mark_point(filled=True, color=GOOD, size=70).encode(x="mean:Q")
    layered = alt.layer(bar, point, tick, data=named()).properties(width=240, height=alt.Step(20))
    chart = layered.facet(facet=alt.Facet("test:N", title=None, sort=sorted(set(shown["test"]))), columns=3)
    return Figure(slug(metric, "draws"), "Calibration draws", words, shown, finished(chart, words[0], shown))
