"""How charts look: colours that the colour-blind can tell apart, and that stand out on white, black and paper alike.

Text and axes have the colour of the page's text (`currentColor`), so that one specification serves a light page, a dark
one, and print. Nothing is told by colour alone: verdicts have shapes, and whether an interval excludes 0 is told by
filled and hollow marks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from quantbench.core.lazy import lazy_module
from quantbench.report.page.figure import DATA, Spec, records

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_module("altair")

TEXT = "currentColor"
GOOD, BAD, EQUAL, OPEN = "#0072B2", "#D55E00", "#009E73", "#808080"
"""Of the palette of Okabe and Ito (2008), those of middle lightness."""

MIDDLE = "#F4F1EA"
"""No difference, in a heat map."""

NAMES = [GOOD, BAD, EQUAL, "#CC79A7", "#8A6FD1", "#9A7A1F", OPEN]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]
"""Repeated side by side they give 42 pairs before one comes again."""

VERDICTS = {
    "better": (GOOD, "triangle-up"),
    "worse": (BAD, "triangle-down"),
    "equivalent": (EQUAL, "square"),
    "undecided": (OPEN, "circle"),
    "not comparable": (OPEN, "cross"),
}
"""Colour and shape of each verdict."""

DARK_INK, LIGHT_INK = "#111111", "#FFFFFF"


CONFIG: Spec = {
    "aria": False,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        **dict.fromkeys(("labelColor", "titleColor", "domainColor", "tickColor"), TEXT),
        "gridColor": OPEN,
        "gridOpacity": 0.25,
        "labelLimit": 420,
    },
    "header": {"labelColor": TEXT, "titleColor": TEXT, "labelFontWeight": "bold", "labelLimit": 300},
    "legend": {"labelColor": TEXT, "titleColor": TEXT, "labelLimit": 420, "orient": "top", "columns": 5},
    "text": {"color": TEXT},
}
"""Marks carry no descriptions of their own: the page has them as a table beside the chart."""


def finished(chart: Any, description: str, frame: pd.DataFrame) -> Spec:
    """The specification of a chart of the rows of a frame, in the style of the page.

    What is common to all charts is added to the plain values: altair copies a chart each time something is set in it.
    """
    spec: Spec = chart.to_dict(validate=False)
    common = {"description": description, "background": "transparent", "padding": 4, "config": CONFIG}
    return spec | common | {"data": {"name": DATA}, "datasets": {DATA: records(frame)}}


def colours(names: list[str]) -> alt.Color:
    """A colour for each name of the column `recipe`."""
    return alt.Color("recipe:N", title=None, scale=alt.Scale(domain=names, range=cycled(NAMES, len(names))))


def shapes(names: list[str]) -> alt.Shape:
    """A shape for each name of the column `recipe`."""
    return alt.Shape("recipe:N", title=None, scale=alt.Scale(domain=names, range=cycled(SHAPES, len(names))))


def cycled(values: list[str], n: int) -> list[str]:
    """The first n of the values, begun again as often as it takes."""
    return [values[index % len(values)] for index in range(n)]
