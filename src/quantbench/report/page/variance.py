"""What a recipe's scores vary by: test items, calibration draws and sets, seeds, replicates, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from quantbench.core.lazy import lazy_module
from quantbench.report.page.figure import Figure, in_order, named, slug, tooltip
from quantbench.report.page.losses import task_names
from quantbench.report.page.style import NAMES, SHAPES, cycled, finished
from quantbench.report.variance_table import SOURCES

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_module("altair")

KEPT = ["row", "test", "source", "sd", "sd_low", "sd_high", "share", "levels", "n_runs", "n_clusters", "runs"]
TOLD_APART = ["settings", "environment", "protocol"]
"""What is added to a row's name where rows of one name differ in it."""

MOST_ROWS = 60


def variance_chart(variances: pd.DataFrame, metric: str) -> Figure | None:
    """Standard deviations by source, a panel for each test; None where nothing but the items is known.

    variances  rows of variance.csv of one model and scale
    """
    own = variances[(variances["metric"] == metric).fillna(False)] if len(variances) else variances
    if own.empty or set(own["source"]) == {"items"}:
        return None
    names = task_names(own)
    frame = own.assign(
        row=_rows(own),
        test=[names[str(task)] for task in own["task"]],
        runs="",
    )[KEPT]
    rows, sources = in_order(frame["row"]), [name for name in SOURCES if (frame["source"] == name).any()]
    scale = "the logarithm of " if bool(own["of_logarithm"].any()) else ""
    words = [
        f"Standard deviation of {scale}{metric} of one run if one thing alone is changed, with its 95 % interval: "
        + "; ".join(f"{name}: {SOURCES[name]}" for name in sources)
        + ".",
    ]
    if len(rows) > MOST_ROWS:
        words.append(f"The first {MOST_ROWS} of {len(rows):,d} are drawn.")
        frame = frame[frame["row"].isin(rows[:MOST_ROWS])]
    look = alt.Scale(domain=sources, range=cycled(NAMES, len(sources)))
    colour = alt.Color("source:N", title=None, scale=look)
    shape = alt.Shape("source:N", title=None, scale=alt.Scale(domain=sources, range=cycled(SHAPES, len(sources))))
    base = alt.Chart().encode(
        y=alt.Y("row:N", title=None, sort=rows),
        yOffset=alt.YOffset("source:N", sort=sources),
        color=colour,
        tooltip=tooltip(KEPT[:-1], frame),
    )
    title = f"sd of {scale}{metric}"
    interval = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("sd_low:Q", title=title), x2="sd_high:Q")
    point = base.mark_point(filled=True, size=60, opacity=1).encode(x="sd:Q", shape=shape)
    layered = alt.layer(interval, point, data=named()).properties(width=260, height=alt.Step(14))
    chart = layered.facet(facet=alt.Facet("test:N", title=None, sort=sorted(set(frame["test"]))), columns=3)
    return Figure(slug(metric, "variance"), "Sources of variance", words, frame, finished(chart, words[0], frame))


def _rows(own: pd.DataFrame) -> list[str]:
    """The recipe, and what else it takes to tell the rows apart."""
    sizes = zip(own["recipe"], own["calib_n"], own["calib_length"], strict=True)
    named_by_size = [f"{recipe}, {n} x {length}" if pd.notna(n) else str(recipe) for recipe, n, length in sizes]
    told = own.assign(row=named_by_size)
    for column in TOLD_APART:
        several = told.groupby(["row", "task"])[column].transform(lambda values: values.nunique(dropna=False) > 1)
        told["row"] = told["row"].where(~several.astype(bool), told["row"] + ", " + told[column].astype(str))
    return [str(row) for row in told["row"]]
