"""What quantizing cost, as measured when the runs were made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from quantbench.core.lazy import lazy_module
from quantbench.report.page.figure import Figure, in_order, named, tooltip
from quantbench.report.page.style import colours, finished, shapes

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_module("altair")

MEASURES = {"cpu_seconds": ("processor seconds", 1.0), "peak_memory_bytes": ("peak memory, GiB", 2.0**30)}
KEPT = ["recipe", "calib", "measure", "amount", "runs"]


def cost_chart(costs: pd.DataFrame) -> Figure | None:
    """Processor time and memory of each run's last quantization; None where none was measured.

    costs  rows of costs.csv of one model
    """
    if costs.empty or "what" not in costs:
        return None
    last = costs[costs["what"] == "quantize"].drop_duplicates("run_id", keep="last")
    parts = []
    for column, (name, unit) in MEASURES.items():
        if column in last:
            known = last[last[column].notna()]
            parts.append(known.assign(measure=name, amount=known[column].astype(float) / unit))
    if not parts or not sum(map(len, parts)):
        return None
    frame = pd.concat(parts, ignore_index=True)
    frame = frame.assign(recipe=_names(frame), runs=frame["run_id"])[KEPT]
    machines = last["environment"].astype(str).nunique() if "environment" in last else 1
    words = ["Processor seconds and peak memory of quantizing, a mark for each run, as measured when it was made."]
    if machines > 1:
        words.append(f"They were measured on {machines} different machines or settings: compare with care.")
    recipes = in_order(frame["recipe"])
    chart = (
        alt.Chart(named())
        .mark_point(filled=True, size=60, opacity=0.8)
        .encode(
            x=alt.X("amount:Q", title=None, scale=alt.Scale(zero=True)),
            y=alt.Y("recipe:N", title=None, sort=recipes),
            color=colours(recipes).legend(None),
            shape=shapes(recipes).legend(None),
            tooltip=tooltip(KEPT, frame),
            href=alt.Href("href:N"),
        )
        .properties(width=280, height=alt.Step(24))
        .facet(facet=alt.Facet("measure:N", title=None), columns=2)
        .resolve_scale(x="independent")
    )
    return Figure("cost", "What quantizing cost", words, frame, finished(chart, words[0], frame))


def _names(frame: pd.DataFrame) -> list[str]:
    pairs = zip(frame["quantizer"].fillna(""), frame["variant"].fillna(""), strict=True)
    return [" ".join(part for part in pair if part) for pair in pairs]
