"""The cells of a table: what a line's runs lost on a test text, and what their calibration text has to do with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quantbench.metrics import metrics
from quantbench.metrics.clusters import RELIABLE
from quantbench.report.caption import RELATION_MARKS
from quantbench.report.columns import ResultRow
from quantbench.report.comparison_columns import FULL_PRECISION, GAP
from quantbench.report.digits import change, rounded, with_error
from quantbench.report.evidence import VERDICT_MARKS, DrawMean, Evidence, Index
from quantbench.report.footnotes import Footnotes
from quantbench.report.lines import Line
from quantbench.report.table import TableCell
from quantbench.report.wording import Row, is_ratio

OWN = "own"
"""Stands for the gap of a line that was calibrated on the test distribution itself."""


@dataclass(frozen=True)
class Paired:
    """A difference from a reference: in the metric's unit, with its standard error and the word for it."""

    difference: float
    stderr: float | None
    verdict: str | None

    @property
    def mark(self) -> str:
        """How the word is shown."""
        return {str(word): mark for word, mark in VERDICT_MARKS.items()}.get(self.verdict or "", "")


class Cells:
    """Makes the cells of one table; reasons go to its notes."""

    def __init__(self, evidence: Evidence, index: Index, notes: Footnotes) -> None:
        self._evidence = evidence
        self._index = index
        self._notes = notes
        self.verdicts: set[str] = set()
        self.families: dict[str, None] = {}

    def value(self, line: Line, task: str) -> TableCell:
        """The metric, its mean over draws, and its difference from full precision."""
        rows = line.rows.get(task, [])
        have = [row for row in rows if row["value"] is not None]
        if not have:
            return self._without(rows)
        first = have[0]
        marks = RELATION_MARKS.get(first["relation"] or "", "") + self._given_way(have)
        if len(have) < len(rows):
            marks += self._notes.number(_some_draws(rows, len(have)))
        mean = self._mean(have)
        if mean.stderr is None and len(have) > 1:
            marks += self._notes.number("no error over draws: it takes influences on the same clusters of items")
        marks += self._weak(first, mean.stderr)
        own = bool(first["in_distribution"])
        paired = self._from_full_precision(have)
        if paired is None:
            alone = first["full_precision"] or metrics.is_relative(first["metric"] or "")
            if not alone:
                marks += self._notes.number(first["error"] or "no difference: this metric keeps no per-item outcomes")
            return TableCell(with_error(mean.value, mean.stderr), marks=marks, in_distribution=own)
        text = change(paired.difference, paired.stderr) + self._said(paired)
        return TableCell(rounded(mean.value, mean.stderr), text, marks, own)

    def gap(self, line: Line, task: str, *, waiting: bool) -> TableCell:
        """What is lost on the task by not calibrating on its text; `waiting`: that run has no score yet."""
        have = [row for row in line.rows.get(task, []) if row["value"] is not None]
        if not have or have[0]["data_free"] or have[0]["full_precision"]:
            return TableCell("")
        if have[0]["in_distribution"]:
            return TableCell(OWN)
        found = self._compared(GAP, have)
        if found is None and len(have) == 1 and (gap := have[0]["transfer_gap"]) is not None:
            found = Paired(gap, have[0]["transfer_gap_stderr"], None)
        if found is None:
            why = "the run calibrated on it has no score yet" if waiting else "there is no one run calibrated on it"
            return TableCell("–", marks=self._notes.number(f"– = no difference: {why}"))
        return TableCell(
            change(found.difference, found.stderr) + self._said(found), marks=self._weak(have[0], found.stderr)
        )

    def _without(self, rows: Sequence[ResultRow]) -> TableCell:
        if not rows:
            return TableCell("–", marks=self._notes.number("– = not part of this sweep"))
        failed = [row for row in rows if row["status"] == "failed"]
        if failed:
            return TableCell("FAILED", marks=self._notes.number(f"failed: {failed[0]['error']}"))
        reasons = {"pending": "– = not run yet", "missing": "– = done, but no such score is stored"}
        reason = next((reasons[row["status"]] for row in rows if row["status"] in reasons), "– = no value is stored")
        return TableCell("–", marks=self._notes.number(reason))

    def _weak(self, row: ResultRow, stderr: float | None) -> str:
        if not stderr or row["n_clusters"] is None or row["n_clusters"] >= RELIABLE:
            return ""
        return self._notes.number(f"± is not reliable: fewer than {RELIABLE} clusters of items")

    def _given_way(self, rows: Sequence[ResultRow]) -> str:
        kinds = (self._notes.mark_fallbacks, self._notes.mark_cut, self._notes.mark_overlap)
        return "".join(dict.fromkeys(mark(row) for mark in kinds for row in rows))

    def _mean(self, rows: Sequence[ResultRow]) -> DrawMean:
        values = [value for row in rows if (value := row["value"]) is not None]
        if len(values) == 1:
            return DrawMean(values[0], rows[0]["stderr"])
        first = rows[0]
        runs = frozenset(row["run_id"] or "" for row in rows)
        known = self._evidence.means.get((first["task"], first["protocol"], first["metric"] or "", runs))
        return known or DrawMean(math.fsum(values) / len(values), None)

    def _from_full_precision(self, rows: Sequence[ResultRow]) -> Paired | None:
        found = self._compared(FULL_PRECISION, rows)
        difference = rows[0]["difference"]
        if found is not None or difference is None or len(rows) > 1:
            return found
        return Paired(difference, rows[0]["difference_stderr"], None)

    def _compared(self, kind: str, rows: Sequence[ResultRow]) -> Paired | None:
        first = rows[0]
        scored = (first["task"], first["protocol"], first["metric"] or "", first["run_id"] or "")
        found = self._index.of(kind, (first["sweep"], first["scale"], *scored))
        if found is None or found["difference"] is None:
            return None
        if found["family"]:
            self.families[found["family"]] = None
        return Paired(found["difference"], _stderr(found), found["verdict"])

    def _said(self, paired: Paired) -> str:
        if paired.verdict is not None:
            self.verdicts.add(paired.verdict)
        return paired.mark


def _stderr(row: Row) -> float | None:
    """The standard error in the metric's unit; of a logarithm times the value, its first-order effect."""
    if row["stderr"] is None:
        return None
    return float(row["stderr"] * (row["value"] if is_ratio(row) else 1.0))


def _some_draws(rows: Sequence[ResultRow], have: int) -> str:
    lost = next(row for row in rows if row["value"] is None)
    why = f"one failed: {lost['error']}" if lost["status"] == "failed" else "the others have no score yet"
    return f"mean of {have} of {len(rows)} draws: {why}"
