"""The roofline plot: what a machine can attain at each intensity, and where the operators of a model lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from quantbench.core.lazy import lazy_module
from quantbench.report.page.figure import Figure, named, slug, tooltip
from quantbench.report.page.style import BAD, GOOD, OPEN, finished
from quantbench.roofline.cost import Cost

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_module("altair")

KEPT = ["kind", "phase", "operator", "arithmetic", "intensity", "attained", "ms", "share", "bound", "label"]
PHASES = ["prefill", "decode"]
PLACES: dict[str, dict[str, Any]] = {
    "prefill": {"align": "right", "dx": -4, "dy": -12},
    "decode": {"align": "left", "dx": 9, "dy": 9},
}
"""Where labels stand beside their marks."""

LABELLED = 0.05
"""Share of a phase's time from which operators have a label."""

NEAR = 3.0
"""Ratio of the highest to the lowest intensity up to which operators share a label."""


def roofline_figure(cost: Cost) -> Figure:
    """Operations a byte against operations a second, both logarithmic: roofs as lines, operators as points."""
    points = [
        {
            "kind": "operator",
            "phase": phase,
            "operator": one.name,
            "arithmetic": one.arithmetic,
            "intensity": one.intensity,
            "attained": one.flops / one.seconds / 1e12,
            "ms": 1e3 * one.seconds,
            "bound": one.bound,
            "share": one.seconds / sum(other.seconds for other in timed),
        }
        for phase, timed in (("prefill", cost.prefill), ("decode", cost.decode))
        for one in timed
        if one.flops
    ]
    known = _labelled(pd.DataFrame(points))
    frame = pd.concat([known, pd.DataFrame(_roofs(cost, known))], ignore_index=True)[KEPT].assign(runs="")
    machine = cost.machine
    words = [
        f"Roofline of {cost.model.name} on {machine.name}, {cost.load.words}: what operators attain of the machine.",
        "On the slope memory is the bound, on the flat part arithmetic; a mark is the larger the more of its phase's "
        "time it takes. Modelled, not measured.",
        f"Numbers of {machine.name}: {machine.source}.",
    ]
    name = slug("roofline", cost.model.name, machine.name)
    return Figure(name, "Roofline", words, frame, finished(_chart(frame), words[0], frame))


def _labelled(points: pd.DataFrame) -> pd.DataFrame:
    """With a label for operators that take time: those of one phase that lie close together share it."""
    named_ones = points[points["share"] >= LABELLED].sort_values("intensity", kind="stable")
    names = {}
    for _, own in named_ones.groupby("phase", sort=False):
        while len(own):
            near = own["intensity"] <= NEAR * own["intensity"].iloc[0]
            names[own.loc[near, "share"].idxmax()] = ", ".join(own.loc[near, "operator"])
            own = own[~near]
    return points.assign(label=points.index.to_series().map(names))


def _roofs(cost: Cost, points: pd.DataFrame) -> list[dict[str, object]]:
    """Three points of the roof of each arithmetic that an operator uses."""
    low, high = points["intensity"].min() / 2, points["intensity"].max() * 2
    found: list[dict[str, object]] = []
    for arithmetic in sorted(set(points["arithmetic"])):
        rate, ridge = cost.machine.rate(arithmetic), cost.machine.ridge(arithmetic)
        for intensity in sorted({low, ridge, max(high, 2 * ridge)}):
            attained = min(rate, intensity * cost.machine.bandwidth) / 1e12
            found.append({"kind": "roof", "arithmetic": arithmetic, "intensity": intensity, "attained": attained})
    return found


def _chart(frame: pd.DataFrame) -> Any:
    room = frame["intensity"].min() / 3  # for labels, which stand to the left of their marks
    x = alt.X("intensity:Q", title="operations a byte", scale=alt.Scale(type="log", nice=False, domainMin=room))
    y = alt.Y("attained:Q", title="10^12 operations a second", scale=alt.Scale(type="log"))
    roof = (
        alt.Chart()
        .transform_filter("datum.kind === 'roof'")
        .mark_line(color=OPEN, strokeWidth=1.5)
        .encode(x=x, y=y, detail="arithmetic:N")
    )
    operators = alt.Chart().transform_filter("datum.kind === 'operator'")
    colour = alt.Color("phase:N", title=None, scale=alt.Scale(domain=PHASES, range=[BAD, GOOD]))
    shape = alt.Shape("phase:N", title=None, scale=alt.Scale(domain=PHASES, range=["square", "circle"]))
    size = alt.Size("share:Q", legend=None, scale=alt.Scale(domain=[0, 0.5], range=[25, 260], clamp=True))
    point = operators.mark_point(filled=True, opacity=0.8).encode(
        x=x, y=y, color=colour, shape=shape, size=size, tooltip=tooltip(KEPT[1:-1], frame)
    )
    labels = [
        operators.transform_filter(f"datum.phase === '{phase}' && datum.label !== null")
        .mark_text(**place, fontSize=10)
        .encode(x=x, y=y, text="label:N")
        for phase, place in PLACES.items()
    ]
    return alt.layer(roof, point, *labels, data=named()).properties(width=520, height=340)
