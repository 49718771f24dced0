"""Cross-distribution tables: what a recipe loses on each test distribution, by what it was calibrated on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from quantbench.core.errors import StoreError
from quantbench.metrics import metrics
from quantbench.report.digits import change, rounded, with_error
from quantbench.report.legend import RELATION_MARKS, Footnotes, caption, gap_caption

DEFAULT_METRICS = ("perplexity", "kl")
"""Metrics of running text that have a table of their own."""

HIDDEN_METRICS = ("nll", "bits_per_byte", "same_top", "macro_f1")
"""Metrics that are in results.csv only, unless a table of them is asked for."""

Row = dict[str, Any]
"""One row of the tidy frame; None where a field is empty."""


@dataclass(frozen=True)
class Cell:
    """A number or word, its change from full precision with its error, and marks that the notes explain."""

    value: str
    change: str = ""
    marks: str = ""
    in_distribution: bool = False


@dataclass(frozen=True)
class Table:
    """One table: rows are calibration sets, columns test distributions; the first column holds the rows' names.

    slug     file name without suffix
    caption  what the reader must know to read it, a paragraph each
    notes    what went wrong or stands out, a line each
    """

    slug: str
    title: str
    header: list[str]
    rows: list[list[Cell]]
    caption: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def default_metrics(frame: pd.DataFrame) -> list[str]:
    """The metrics of a frame that have a table unless others are asked for: those of text first."""
    found = [str(name) for name in frame["metric"].dropna().unique()]
    own = [name for name in found if name not in {*DEFAULT_METRICS, *HIDDEN_METRICS}]
    text = [name for name in DEFAULT_METRICS if name in found]
    return [*text, *own] or [DEFAULT_METRICS[0]]


def tables(frame: pd.DataFrame, metric: str) -> list[Table]:
    """One table per model, recipe, variant and scale in the frame of `collate` that has the metric.

    Raises StoreError if a table would have scores of two protocols in one column.
    """
    missing = frame["metric"].isna()
    chosen = frame[(frame["metric"] == metric).fillna(False) | missing]
    rows = plain_rows(chosen)
    if not any(row["metric"] for row in rows) and (metric != DEFAULT_METRICS[0] or frame["metric"].notna().any()):
        return []
    recipes = [row for row in rows if not row["full_precision"]] or rows
    keys = dict.fromkeys(_recipe(row) for row in recipes)
    made: dict[str, Table] = {}
    for key in keys:
        own = [row for row in recipes if _recipe(row) == key]
        first = own[0]
        same_study = (first["sweep"], first["model"], first["scale"])
        full = [r for r in rows if r["full_precision"] and (r["sweep"], r["model"], r["scale"]) == same_study]
        slug = _slug([metric, *(first[name] for name in ("model", "quantizer", "variant", "scale"))], made)
        made[slug] = _table(slug, metric, full if recipes is not rows else [], own)
    return list(made.values())


def plain_rows(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame as plain values, None where a field is empty."""
    records = frame.to_dict("records")
    return [{str(key): None if pd.isna(value) else value for key, value in row.items()} for row in records]


def _recipe(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("sweep", "model", "quantizer", "variant", "scale"))


def _slug(parts: Iterable[str | None], taken: Iterable[str]) -> str:
    slug = re.sub(r"[^A-Za-z0-9.=_]+", "-", "-".join(part for part in parts if part)).strip("-.")
    same = sum(other == slug or re.fullmatch(re.escape(slug) + r"-\d+", other) is not None for other in taken)
    return slug if same == 0 else f"{slug}-{same + 1}"


def _table(slug: str, metric: str, full: Sequence[Row], own: Sequence[Row]) -> Table:
    protocols = _protocols(own)
    full = [
        row for row in full if None in (pair := (row["protocol"], protocols.get(row["task"]))) or pair[0] == pair[1]
    ]
    tasks = list(dict.fromkeys(row["task"] for row in [*full, *own] if row["task"] in protocols))
    notes = Footnotes()
    lines = _lines(full) | _lines(own)
    body = [[Cell(name), *_cells(line, tasks, notes)] for name, line in lines.items()]
    names = dict(zip(tasks, _column_names([*full, *own], tasks), strict=True))
    header = ["calibration", *names.values()]
    against = [task for task in tasks if any(r["task"] == task and r["own_difference"] is not None for r in own)]
    gaps = [_gap(line, against) for line in lines.values()]
    if any(gaps):
        header.append("OOD − own")
        body = [[*row, gap or Cell("")] for row, gap in zip(body, gaps, strict=True)]
    budgets = [_tokens(line) for line in lines.values()]
    if len({budget for budget in budgets if budget}) > 1:
        header.insert(1, "tokens")
        body = [[row[0], Cell(budget), *row[1:]] for row, budget in zip(body, budgets, strict=True)]
    title, paragraphs = caption(metric, [*full, *own], own, names)
    if any(gaps):
        paragraphs.append(gap_caption([names[task] for task in against]))
    return Table(slug, title, header, body, paragraphs, notes.lines([*full, *own]))


def _protocols(rows: Sequence[Row]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for row in rows:
        task, protocol = row["task"], row["protocol"]
        known = found.setdefault(task, protocol)
        if None not in (known, protocol) and known != protocol:
            raise StoreError(
                f"task {task}: scores of protocol {known} and of protocol {protocol} in one table. The scores' "
                "protocol_values say what differs: make it the same, or give each its own scale or variant"
            )
        found[task] = known or protocol
    return found


def _lines(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """The rows of each line of the table, by task; a line's name says what sets it apart from the others."""
    apart = [name for name in ("seed", "draw", "replicate") if len({row[name] for row in rows} - {None}) > 1]
    lines: dict[str, dict[str, Row]] = {}
    for row in rows:
        parts = ["(full precision)" if row["full_precision"] else row["calib"], row["calib_variant"]]
        parts += [f"{name}={row[name]}" for name in apart if row[name] is not None]
        name = " ".join(part for part in parts if part)
        if row["task"] in lines.get(name, {}):
            name = f"{name} [{row['run_id'] or 'no run'}]"
        lines.setdefault(name, {})[row["task"]] = row
    return lines


def _cells(line: dict[str, Row], tasks: Sequence[str], notes: Footnotes) -> list[Cell]:
    return [_cell(line.get(task), notes) for task in tasks]


def _cell(row: Row | None, notes: Footnotes) -> Cell:
    if row is None:
        return Cell("–", marks=notes.number("– = not part of this sweep"))
    if row["status"] == "failed":
        return Cell("FAILED", marks=notes.number(f"failed: {row['error']}"))
    if row["value"] is None:
        reasons = {"pending": "– = not run yet", "missing": "– = done, but no such score is stored"}
        return Cell("–", marks=notes.number(reasons[row["status"]]))
    marks = RELATION_MARKS.get(row["relation"], "") + notes.mark_fallbacks(row)
    alone = row["full_precision"] or metrics.is_relative(row["metric"])
    if not alone and row["difference"] is None:
        marks += notes.number(row["error"] or "no difference: this metric keeps no per-item outcomes")
    error = row["stderr"]
    own = bool(row["in_distribution"])
    if row["difference"] is None:
        return Cell(with_error(row["value"], error), marks=marks, in_distribution=own)
    return Cell(rounded(row["value"], error), change(row["difference"], row["difference_stderr"]), marks, own)


def _gap(line: dict[str, Row], against: Sequence[str]) -> Cell | None:
    """Mean over out-of-distribution columns of the paired difference from each column's own calibration.

    The columns are independent samples: se = sqrt(sum of se^2) / k. None unless all of them have a difference.
    """
    outside = [line[task] for task in against if task in line and line[task]["in_distribution"] is False]
    errors = [row["own_difference_stderr"] for row in outside]
    if not outside or any(error is None for error in errors):
        return None
    mean = math.fsum(row["own_difference"] for row in outside) / len(outside)
    return Cell(change(mean, math.sqrt(math.fsum(error**2 for error in errors)) / len(outside)))


def _column_names(rows: Sequence[Row], tasks: Sequence[str]) -> list[str]:
    """The distribution of each task, or the task where two tasks share a distribution."""
    names = {row["task"]: row["distribution"] for row in rows if row["distribution"]}
    wanted = [names.get(task, task) for task in tasks]
    return [name if wanted.count(name) == 1 else task for name, task in zip(wanted, tasks, strict=True)]


def _tokens(line: dict[str, Row]) -> str:
    counts = {row["calib_tokens"] for row in line.values()} - {None}
    return f"{counts.pop():,}" if len(counts) == 1 else ""
