"""Cross-distribution tables: what a recipe loses on each test distribution, by what it was calibrated on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from quantbench.core.errors import StoreError
from quantbench.report.caption import GAP_HEADER, caption, gap_caption
from quantbench.report.columns import ResultRow, result_rows
from quantbench.report.footnotes import Footnotes
from quantbench.report.lines import cells_of, gap_of, lines_of, tokens_of
from quantbench.report.shown import DEFAULT_METRICS
from quantbench.report.shown import default_metrics as default_metrics
from quantbench.report.table import Table, TableCell
from quantbench.report.variants import WITH


def tables(frame: pd.DataFrame, metric: str) -> list[Table]:
    """One table per model, recipe, variant and scale in the frame of `collate` that has the metric.

    Raises StoreError if a table would have scores of two protocols in one column.
    """
    missing = frame["metric"].isna()
    chosen = frame[(frame["metric"] == metric).fillna(False) | missing]
    rows = result_rows(chosen)
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
        option = first["scale"].partition(WITH)[0]
        slug = _slug([metric, *(first[name] for name in ("model", "quantizer", "variant")), option], made)
        made[slug] = _table(slug, metric, full if recipes is not rows else [], own)
    return list(made.values())


def _recipe(row: ResultRow) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("sweep", "model", "quantizer", "variant", "scale"))


def _slug(parts: Iterable[str | None], taken: Iterable[str]) -> str:
    slug = re.sub(r"[^A-Za-z0-9.=_]+", "-", "-".join(part for part in parts if part)).strip("-.")
    same = sum(other == slug or re.fullmatch(re.escape(slug) + r"-\d+", other) is not None for other in taken)
    return slug if same == 0 else f"{slug}-{same + 1}"


def _table(slug: str, metric: str, full: Sequence[ResultRow], own: Sequence[ResultRow]) -> Table:
    protocols = _protocols(own)
    full = [
        row for row in full if None in (pair := (row["protocol"], protocols.get(row["task"]))) or pair[0] == pair[1]
    ]
    tasks = list(dict.fromkeys(row["task"] for row in [*full, *own] if row["task"] in protocols))
    notes = Footnotes()
    lines = lines_of(full) | lines_of(own)
    body = [[TableCell(name), *cells_of(line, tasks, notes)] for name, line in lines.items()]
    names = dict(zip(tasks, _column_names([*full, *own], tasks), strict=True))
    header = ["calibration", *names.values()]
    against = [task for task in tasks if any(r["task"] == task and r["transfer_gap"] is not None for r in own)]
    waiting = [
        task
        for task in tasks
        if task not in against and any(r["task"] == task and r["in_distribution"] and r["value"] is None for r in own)
    ]
    gaps = [gap_of(line, against, waiting, notes) for line in lines.values()]
    if any(gaps):
        header.append(GAP_HEADER)
        body = [[*row, gap or TableCell("")] for row, gap in zip(body, gaps, strict=True)]
    budgets = [tokens_of(line) for line in lines.values()]
    if len({budget for budget in budgets if budget}) > 1:
        header.insert(1, "tokens")
        body = [[row[0], TableCell(budget), *row[1:]] for row, budget in zip(body, budgets, strict=True)]
    title, paragraphs = caption(metric, [*full, *own], own, names)
    if any(gaps):
        paragraphs.append(gap_caption([names[task] for task in against]))
    return Table(slug, title, header, body, paragraphs, notes.lines())


def _protocols(rows: Sequence[ResultRow]) -> dict[str, str | None]:
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


def _column_names(rows: Sequence[ResultRow], tasks: Sequence[str]) -> list[str]:
    """The distribution of each task, or the task where two tasks share a distribution."""
    names = {row["task"]: row["distribution"] for row in rows if row["distribution"]}
    wanted = [names.get(task, task) for task in tasks]
    return [name if wanted.count(name) == 1 else task for name, task in zip(wanted, tasks, strict=True)]
