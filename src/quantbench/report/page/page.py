"""The page: one HTML file with everything in it, which asks the network for nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as resources
from typing import TYPE_CHECKING, Any

import pandas as pd

from quantbench.core.lazy import lazy_module
from quantbench.core.version import __version__
from quantbench.report.page.content import Content
from quantbench.report.page.drawing import javascript, script_json, svg
from quantbench.report.page.figure import DATA, Figure, anchor, by_columns, rows_of
from quantbench.report.page.figures import Section
from quantbench.report.page.recipes import grouped

if TYPE_CHECKING:
    import jinja2
    import markupsafe
else:
    jinja2 = lazy_module("jinja2")
    markupsafe = lazy_module("markupsafe")

FINDINGS = 20
"""Sentences that are seen at once; the others are behind a button."""

TABLE_ROWS = 200
"""Rows of a table beside a chart; what is copied has all of them."""

STILL = 24
"""Charts that are also in the file as pictures, for print and for browsers without scripts."""

STILL_MARKS = 400
"""Rows above which a chart has no such picture: it would be larger than the page."""


@dataclass(frozen=True)
class Shown:
    """A figure as the template needs it."""

    figure: Figure
    still: str | None
    header: list[str]
    rows: list[list[Any]]
    left_out: int


def html(content: Content, sections: Sequence[Section]) -> str:
    """The page. Equal content gives an equal page."""
    figures = [figure for section in sections for figure in section.figures]
    stills = {figure.slug: _still(figure) for figure in [f for f in figures if len(f.data) <= STILL_MARKS][:STILL]}
    shown = [(section, [_shown(figure, stills.get(figure.slug)) for figure in section.figures]) for section in sections]
    contents = {
        figure.slug: {
            "spec": {key: value for key, value in figure.spec.items() if key != "datasets"},
            "table": by_columns(figure.spec["datasets"][DATA]),
            "columns": [str(name) for name in figure.data],
        }
        for figure in figures
    }
    safe = markupsafe.Markup
    return _template().render(
        content=content,
        title="quantbench: " + ", ".join(content.sweeps),
        sections=shown,
        recipes=grouped(content.runs),
        version=__version__,
        contents=safe(script_json(contents)),
        runtime=safe(_inside_script(javascript()) if figures else ""),
        style=safe(_resource("page.css")),
        script=safe(_resource("page.js")),
        most_findings=FINDINGS,
        failed=sum(run.status == "failed" for run in content.runs),
    )


def _still(figure: Figure) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg(figure.spec).encode()).decode("ascii")


def _shown(figure: Figure, still: str | None) -> Shown:
    first = figure.data.head(TABLE_ROWS)
    rows = [[_cell(name, value) for name, value in row.items()] for row in rows_of(first)]
    return Shown(figure, still, [str(name).replace("_", " ") for name in first], rows, len(figure.data) - len(first))


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and the runs that it links to."""

    text: str
    number: bool = False
    runs: tuple[tuple[str, str], ...] = ()


def _cell(name: Any, value: Any) -> Cell:
    if value is None or pd.isna(value):
        return Cell("")
    if name == "runs":
        return Cell("", runs=tuple((run, anchor(run)) for run in str(value).split()))
    if isinstance(value, float):
        return Cell(f"{value:.4g}", number=True)
    return Cell(str(value), number=isinstance(value, int) and not isinstance(value, bool))


def _inside_script(code: str) -> str:
    """Code in whose strings nothing ends the element that holds it."""
    return re.sub(r"<(/script|!--)", lambda found: "<\\" + found[1], code, flags=re.IGNORECASE)


def _resource(name: str) -> str:
    return resources("quantbench.report.page").joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(_resource("page.html.jinja"))
