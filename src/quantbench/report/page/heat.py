"""Heat maps: what each recipe loses on each test, and what is lost by calibrating on another text.

A cell is filled where the 95 % interval excludes 0 and hollow where it does not, so that a strong colour is never a
number that may be nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from quantbench.core.lazy import lazy_module
from quantbench.metrics.statistics import Values
from quantbench.report.page.figure import Figure, in_order, named, tooltip
from quantbench.report.page.style import BAD, DARK_INK, GOOD, LIGHT_INK, MIDDLE, OPEN, TEXT, finished

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_module("altair")

EXCLUDED, ONE_DRAW, HELD, UNKNOWN = "excludes 0", "excludes 0, this draw only", "holds 0", "no interval"
"""What the 95 % interval of a cell says."""

DENSE = 60
"""Rows above which cells are low and hold no numbers."""

MOST_ROWS = 1000

FILL_WORDS = (
    "Filled: the 95 % interval excludes 0. Filled with a dashed edge: it does, but for one calibration draw only. "
    "Hollow: it holds 0, so that this measurement cannot tell it from nothing. Dotted: there is no interval."
)


def state(low: float, high: float, one_draw: bool) -> str:
    """What an interval says of 0."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return UNKNOWN
    if low <= 0 <= high:
        return HELD
    return ONE_DRAW if one_draw else EXCLUDED


def heat_map(slug: str, frame: pd.DataFrame, title: str, metric: str, words: list[str], signed: bool) -> Figure:
    """A cell for each row of the frame.

    frame   columns row, test, shown (text), amount (what colours; NaN: not scored), state, higher_is_better, and runs
    signed  amounts are differences: the scale has 0 in the middle, and losses on the side of vermilion
    """
    rows, tests = in_order(frame["row"]), sorted(set(frame["test"]))
    left_out = len(rows) - MOST_ROWS
    if left_out > 0:
        rows = rows[:MOST_ROWS]
        frame = frame[frame["row"].isin(rows)]
        words = [*words, f"The first {MOST_ROWS:,d} rows are drawn; {left_out:,d} more are in results.csv."]
    dense = len(rows) > DENSE
    scale, inks = _scale(frame, signed)
    filled_in = frame["state"].isin([EXCLUDED, ONE_DRAW])
    frame = frame.assign(ink=[ink if full else "text" for ink, full in zip(inks, filled_in, strict=True)])
    apart = alt.Scale(paddingInner=0.0 if dense else 0.06)  # edges of neighbours do not lie on each other
    base = alt.Chart().encode(
        x=alt.X(
            "test:N",
            title="tested on",
            sort=tests,
            scale=apart,
            axis=alt.Axis(orient="top", labelAngle=-30, grid=False),
        ),
        y=alt.Y("row:N", title=None, sort=rows, scale=apart, axis=alt.Axis(grid=False, labelOverlap=True)),
        tooltip=tooltip(
            ["row", "test", "value", "difference", "low", "high", "verdict", "p_holm", "draws", "runs"], frame
        ),
        href=alt.Href("href:N"),
    )
    legend = alt.Legend(title=metric, orient="right", gradientLength=160, format=".3~g")
    fill = alt.Fill("amount:Q", scale=scale, legend=legend)
    edge = 0.0 if dense else 1.5
    layers = [
        _of(base, EXCLUDED).mark_rect(stroke=TEXT, strokeWidth=edge).encode(fill=fill),
        _of(base, ONE_DRAW).mark_rect(stroke=TEXT, strokeWidth=edge, strokeDash=[4, 3]).encode(fill=fill),
        _of(base, HELD).mark_rect(stroke=OPEN, strokeWidth=1, fill=MIDDLE, fillOpacity=0),
        _of(base, UNKNOWN).mark_rect(stroke=OPEN, strokeWidth=1, strokeDash=[1, 3], fill=MIDDLE, fillOpacity=0),
    ]
    if not dense:
        ink = alt.Scale(domain=["dark", "light", "text"], range=[DARK_INK, LIGHT_INK, TEXT])
        layers.append(
            base.mark_text(fontSize=11).encode(text="shown:N", color=alt.Color("ink:N", scale=ink, legend=None))
        )
    chart = alt.layer(*layers, data=named()).properties(width=alt.Step(96), height=alt.Step(8 if dense else 26))
    kept = [c for c in frame.columns if c not in ("ink", "row", "shown", "amount")]
    return Figure(slug, title, [*words, FILL_WORDS], frame[kept], finished(chart, words[0], frame))


def _of(base: alt.Chart, wanted: str) -> alt.Chart:
    return base.transform_filter(f"datum.state === '{wanted}'")


def _scale(frame: pd.DataFrame, signed: bool) -> tuple[alt.Scale, list[str]]:
    """The colour scale, and whether the text of each cell is dark or light.

    Logarithmic beyond the median amount: one broken recipe does not make the others look alike.
    """
    amounts = frame["amount"].to_numpy(np.float64)
    known = np.abs(amounts[np.isfinite(amounts)])
    largest = float(known.max()) if known.size and known.max() > 0 else 1.0
    positive = known[known > 0]
    constant = float(np.median(positive)) if positive.size else 1.0
    share = np.log1p(np.abs(np.nan_to_num(amounts)) / constant) / math.log1p(largest / constant)
    higher = bool(frame["higher_is_better"].fillna(False).any())
    bad_last: list[Any] = [GOOD, MIDDLE, BAD]
    settings: dict[str, Any] = {"type": "symlog", "constant": constant, "interpolate": "rgb"}
    if signed:
        settings |= {"domain": [-largest, 0, largest], "range": bad_last[::-1] if higher else bad_last}
    else:
        settings |= {"domain": [0, largest], "range": [MIDDLE, "#E39B5F", "#8A3800"]}
    return alt.Scale(**settings), ["light" if dark else "dark" for dark in _dark(amounts, share, signed, higher)]


def _dark(amounts: Values, shares: Values, signed: bool, higher_is_better: bool) -> NDArray[np.bool_]:
    """Whether text on each colour has more contrast when it is light: on dark brown, and on blue, not on vermilion."""
    found: NDArray[np.bool_] = shares > 0.72 if not signed else (shares > 0.85) & ((amounts > 0) == higher_is_better)
    return found
