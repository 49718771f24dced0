"""What tests found, by the runs of a cell: comparisons, and means over draws with their errors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pandas as pd

from quantbench.metrics.verdict import Verdict
from quantbench.report.columns import series
from quantbench.report.comparison_columns import COMPARISON_COLUMNS
from quantbench.report.wording import Row, plain

VERDICT_MARKS = {
    Verdict.WORSE: "▼",
    Verdict.BETTER: "▲",
    Verdict.EQUIVALENT: "≡",
    Verdict.UNDECIDED: "?",
    Verdict.NOT_COMPARABLE: "×",
}
"""How cells show what a comparison found."""

Key = tuple[str, str, str, str | None, str, str]
"""Sweep, scale, task, protocol, metric and run id."""

DrawKey = tuple[str, str | None, str, frozenset[str]]
"""Task, protocol, metric and the ids of an arm's runs."""


@dataclass(frozen=True)
class DrawMean:
    """A metric's mean over calibration draws; its standard error over draws and clusters, None if there is none."""

    value: float
    stderr: float | None


@dataclass(frozen=True)
class Evidence:
    """Comparisons and means over draws.

    comparisons  a frame of comparisons.csv
    means        by task, protocol, metric and runs
    """

    comparisons: pd.DataFrame | None = None
    means: Mapping[DrawKey, DrawMean] = field(default_factory=dict)
    _rows: dict[str, list[Row]] = field(default_factory=dict, repr=False, compare=False)

    def of(self, metric: str) -> pd.DataFrame:
        """The comparisons of one metric."""
        if self.comparisons is None:
            return pd.DataFrame({name: series(name, kind, []) for name, kind in COMPARISON_COLUMNS.items()})
        return self.comparisons[self.comparisons["metric"] == metric]

    def rows(self, metric: str) -> list[Row]:
        """The same as plain values."""
        if metric not in self._rows:
            self._rows[metric] = list(plain(self.of(metric)))
        return self._rows[metric]


class Index:
    """Comparisons by the runs that they compare with a reference."""

    def __init__(self, rows: Collection[Row]) -> None:
        self._found: dict[tuple[str, Key], Row] = {}
        for row in rows:
            for run in str(row["run_ids"]).split():
                key = (row["sweep"], row["scale"], row["task"], row["protocol"], row["metric"], run)
                self._found.setdefault((row["kind"], key), row)

    def of(self, kind: str, key: Key) -> Row | None:
        """The comparison of a kind that the run is part of, or None."""
        return self._found.get((kind, key))
