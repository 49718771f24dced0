"""A figure: one chart specification, the data behind it, and the words that say how to read it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import altair as alt
else:
    alt = lazy_module("altair")

Spec = dict[str, Any]
"""A Vega-Lite specification as plain values, its rows under "datasets"."""

DATA = "shown"
"""The name of a chart's rows in its specification."""

DIGITS = 6
"""Significant digits of numbers on the page; the files beside it have more."""


@dataclass(frozen=True, eq=False)
class Figure:
    """One chart.

    slug     file name without suffix, and anchor
    title    heading
    words    how it is read, and what is left out of it, a paragraph each; the first describes it to a screen reader
    data     what is shown, a row for each mark, with a column `runs` of run ids, joined by spaces
    spec     Vega-Lite, its data inside
    """

    slug: str
    title: str
    words: list[str]
    data: pd.DataFrame
    spec: Spec = field(repr=False)


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows by the names of the columns."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON values: what is missing, or not finite, is null."""
    return [{key: _plain(value) for key, value in row.items()} for row in rows_of(frame)]


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA:
        return None
    found = value.item() if hasattr(value, "item") else value
    if isinstance(found, float):
        return float(f"{found:.{DIGITS}g}") if math.isfinite(found) else None
    return found


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A chart's rows, with `href`: the place on the page that has a mark's run, its settings and its command.

    A mark of what has not run leads nowhere.
    """
    return [row | {"href": f"#{anchor(row['runs'])}" if row["runs"].strip() else None} for row in plain(frame)]


def by_columns(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rows with equal keys, column by column: values, or of texts `levels` and their `codes`."""
    found: dict[str, Any] = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        levels = {value: number for number, value in enumerate(dict.fromkeys(values))}
        texts = all(value is None or isinstance(value, str) for value in levels)
        found[name] = {"levels": [*levels], "codes": [levels[value] for value in values]} if texts else values
    return found


def named() -> alt.NamedData:
    """Stands in a chart for its rows."""
    return alt.NamedData(DATA)


def anchor(runs: str) -> str:
    """The anchor of the first of several run ids that are joined by spaces."""
    return "run-" + runs.split()[0]


def tooltip(columns: Sequence[str], frame: pd.DataFrame) -> list[alt.Tooltip]:
    """What is shown beside the pointer: those of the columns that the frame has."""
    return [
        alt.Tooltip(f"{name}:{'Q' if pd.api.types.is_float_dtype(frame[name]) else 'N'}", format=".4g")
        if pd.api.types.is_float_dtype(frame[name])
        else alt.Tooltip(f"{name}:N")
        for name in columns
        if name in frame
    ]


def slug(*parts: str) -> str:
    """A file name of words."""
    return re.sub(r"[^A-Za-z0-9.=_]+", "-", "-".join(part for part in parts if part)).strip("-.").lower()


def in_order(values: Iterable[Any]) -> list[str]:
    """The different values as text, in the order they are met: an axis keeps the order of the frame."""
    return [str(value) for value in dict.fromkeys(values)]
