"""The lines of a table: which rows of the tidy frame make one up, and what it shows of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from quantbench.metrics import metrics
from quantbench.report.caption import RELATION_MARKS
from quantbench.report.columns import ResultRow
from quantbench.report.digits import change, rounded, with_error
from quantbench.report.footnotes import Footnotes
from quantbench.report.table import TableCell

Line = dict[str, ResultRow]
"""The rows of a line, all of one metric, by task."""

REPLICATES: tuple[Literal["seed", "draw", "replicate"], ...] = ("seed", "draw", "replicate")


def lines_of(rows: Sequence[ResultRow]) -> dict[str, Line]:
    """The rows of each line of the table, by task; a line's name says what sets it apart from the others."""
    apart = {name for name in REPLICATES if len({row[name] for row in rows} - {None}) > 1}
    lines: dict[str, Line] = {}
    for row in rows:
        parts = ["(full precision)" if row["full_precision"] else row["calib"], row["calib_variant"]]
        parts += [f"{name}={row[name]}" for name in REPLICATES if name in apart and row[name] is not None]
        name = " ".join(part for part in parts if part)
        if row["task"] in lines.get(name, {}):
            name = f"{name} [{row['run_id'] or 'no run'}]"
        lines.setdefault(name, {})[row["task"]] = row
    return lines


def cells_of(line: Line, tasks: Sequence[str], notes: Footnotes) -> list[TableCell]:
    """What the line shows for each task."""
    return [_cell(line.get(task), notes) for task in tasks]


def _cell(row: ResultRow | None, notes: Footnotes) -> TableCell:
    if row is None:
        return TableCell("–", marks=notes.number("– = not part of this sweep"))
    if row["status"] == "failed":
        return TableCell("FAILED", marks=notes.number(f"failed: {row['error']}"))
    if row["value"] is None:
        reasons = {"pending": "– = not run yet", "missing": "– = done, but no such score is stored"}
        return TableCell("–", marks=notes.number(reasons[row["status"]]))
    marks = RELATION_MARKS.get(row["relation"] or "", "") + notes.mark_fallbacks(row)
    marks += notes.mark_cut(row) + notes.mark_overlap(row)
    alone = row["full_precision"] or metrics.is_relative(row["metric"] or "")
    if not alone and row["difference"] is None:
        marks += notes.number(row["error"] or "no difference: this metric keeps no per-item outcomes")
    error = row["stderr"]
    own = bool(row["in_distribution"])
    if row["difference"] is None:
        return TableCell(with_error(row["value"], error), marks=marks, in_distribution=own)
    return TableCell(rounded(row["value"], error), change(row["difference"], row["difference_stderr"]), marks, own)


def gap_of(line: Line, against: Sequence[str], waiting: Sequence[str], notes: Footnotes) -> TableCell | None:
    """Mean over out-of-distribution columns of the paired difference from each column's own calibration.

    against  columns that have differences
    waiting  columns that will have: the run that was calibrated on them has no score yet. A note counts them
    The columns are independent samples: se = sqrt(sum of se^2) / k. None unless all of them have a difference.
    """
    outside = [line[task] for task in against if task in line and line[task]["in_distribution"] is False]
    gaps = [gap for row in outside if (gap := row["transfer_gap"]) is not None]
    errors = [error for row in outside if (error := row["transfer_gap_stderr"]) is not None]
    if not outside or len(errors) < len(outside):
        return None
    marks, missing = "", sum(task in line and line[task]["in_distribution"] is False for task in waiting)
    if missing:
        whole = len(gaps) + missing
        marks = notes.number(f"the mean of {len(gaps)} of {whole} columns: the others' own runs have no score yet")
    mean = math.fsum(gaps) / len(gaps)
    return TableCell(change(mean, math.sqrt(math.fsum(e**2 for e in errors)) / len(gaps)), marks=marks)


def tokens_of(line: Line) -> str:
    """Tokens calibrated on, "" if there is no one number."""
    counts = {row["calib_tokens"] for row in line.values()} - {None}
    return f"{counts.pop():,}" if len(counts) == 1 else ""
