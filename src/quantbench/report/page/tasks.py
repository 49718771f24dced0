"""Answers that changed: right to wrong, and wrong to right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from quantbench.core.lazy import lazy_module
from quantbench.report.page.figure import Figure, in_order, named, tooltip
from quantbench.report.page.losses import arm_name, task_names
from quantbench.report.page.style import BAD, GOOD, OPEN, finished

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_module("altair")

FLIPS = {"flips_wrong": "right to wrong", "flips_right": "wrong to right"}
KEPT = ["row", "test", "recipe", "calibration", "flip", "share", "low", "high", "draws", "runs"]


def flip_chart(values: pd.DataFrame) -> Figure | None:
    """Shares of the items that flipped, a panel for each task; None where no metric tells of them.

    values  rows of `arm_values` of one model and scale
    """
    own = values[values["metric"].isin(list(FLIPS)) & values["value"].notna()]
    if own.empty:
        return None
    names = task_names(own)
    wrong = own["metric"] == "flips_wrong"
    frame = own.assign(
        row=[arm_name(*pair) for pair in zip(own["recipe"], own["calibration"], strict=True)],
        test=[names[str(task)] for task in own["task"]],
        flip=own["metric"].map(FLIPS),
        share=own["value"],
        signed=own["value"].where(wrong, -own["value"]),
    )
    words = [
        "Share of items whose answer full precision has right and the quantized model wrong (to the right), and the "
        "other way round (to the left). An unchanged score can hide many of both.",
    ]
    scale = alt.Scale(domain=list(FLIPS.values()), range=[BAD, GOOD])
    bar = (
        alt.Chart()
        .mark_bar()
        .encode(
            x=alt.X("signed:Q", title="share of items", axis=alt.Axis(labelExpr="format(abs(datum.value), '.2')")),
            y=alt.Y("row:N", title=None, sort=in_order(frame["row"])),
            color=alt.Color("flip:N", title=None, scale=scale),
            tooltip=tooltip(KEPT, frame),
            href=alt.Href("href:N"),
        )
    )
    zero = alt.Chart().mark_rule(color=OPEN).encode(x=alt.datum(0))
    layered = alt.layer(bar, zero, data=named()).properties(width=220, height=alt.Step(18))
    chart = layered.facet(facet=alt.Facet("test:N", title=None, sort=sorted(set(frame["test"]))), columns=3)
    return Figure(
        "flips", "Answers that changed", words, frame[KEPT], finished(chart, words[0], frame[[*KEPT, "signed"]])
    )
