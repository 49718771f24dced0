"""Losses of single layers, by their place in the model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

from quantbench.core.lazy import lazy_module
from quantbench.report.page.figure import Figure, in_order, named, tooltip
from quantbench.report.page.style import colours, finished, shapes

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_module("altair")

_PLACE = re.compile(r"\.(\d+)\.")

MOST = 4000
"""Marks that are drawn; above, the layers of a block are shown by their mean."""

KEPT = ["recipe", "calib", "layer", "block", "relative_loss", "bits_per_weight", "draws", "runs"]


def layer_chart(layers: pd.DataFrame) -> Figure | None:
    """Relative loss over blocks, a panel for each kind of layer; None where no loss is known.

    layers  rows of layers.csv of one model: recipe, calib, layer, relative_loss, bits_per_weight, run_id
    """
    known = layers[layers["relative_loss"].notna() & (layers["relative_loss"] > 0)]
    if known.empty:
        return None
    found = known["layer"].map(place)
    known = known.assign(block=[block for block, _ in found], layer=[kind for _, kind in found])
    words = [
        "Squared change of a layer's outputs as a share of its outputs, by block (across) and kind of layer (panels)."
    ]
    frame = _mean(known, ["recipe", "calib", "layer", "block"])
    if len(frame) > MOST:
        frame = _mean(known.assign(layer="all layers of a block"), ["recipe", "calib", "layer", "block"])
        words.append("There are too many layers to show each: a mark is the mean over the layers of a block.")
    if len(frame) > MOST:
        frame = _mean(
            known.assign(layer="all layers of a block", calib="mean over sets"), ["recipe", "calib", "layer", "block"]
        )
        words[-1] += " It is also the mean over the calibration sets."
    if int(frame["draws"].max()) > 1:
        words.append("Where an arm has several draws, a mark is their mean.")
    recipes = in_order(frame["recipe"])
    base = alt.Chart(named()).encode(
        x=alt.X("block:Q", title="block", axis=alt.Axis(tickMinStep=1)),
        y=alt.Y("relative_loss:Q", title="relative loss", scale=alt.Scale(type="log", nice=False)),
        color=colours(recipes),
        detail="calib:N",
        tooltip=tooltip(KEPT, frame),
        href=alt.Href("href:N"),
    )
    layered = base.mark_line(strokeWidth=1, opacity=0.6) + base.mark_point(filled=True, size=22).encode(
        shape=shapes(recipes)
    )
    chart = layered.properties(width=230, height=160).facet(
        facet=alt.Facet("layer:N", title=None, sort=in_order(frame["layer"])), columns=3
    )
    return Figure("layers", "Loss of each layer", words, frame[KEPT], finished(chart, words[0], frame))


def place(name: str) -> tuple[int, str]:
    """The number of a layer's block (-1: in none), and its name within it."""
    found = _PLACE.search(name)
    return (-1, name) if found is None else (int(found[1]), name[found.end() :])


def _mean(known: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    grouped = known.groupby(keys, sort=False, as_index=False)
    return grouped.agg(
        relative_loss=("relative_loss", "mean"),
        bits_per_weight=("bits_per_weight", "mean"),
        draws=("run_id", "nunique"),
        runs=("run_id", lambda ids: " ".join(dict.fromkeys(map(str, ids)))),
    )
