"""Cross-distribution tables: what recipes lose on each test distribution, by what they were calibrated on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from quantbench.report.caption import caption, gap_caption, metric_words, verdict_caption
from quantbench.report.cells import Cells
from quantbench.report.columns import ResultRow, result_rows
from quantbench.report.comparison_columns import GAP
from quantbench.report.evidence import Evidence, Index
from quantbench.report.footnotes import Footnotes
from quantbench.report.lines import Line, lines_of
from quantbench.report.matched import matched_is_best
from quantbench.report.matched import sentence as matched_sentence
from quantbench.report.opening import opening, spread
from quantbench.report.sentences import answers, is_left_out
from quantbench.report.shown import DEFAULT_METRICS
from quantbench.report.studies import Study, studies_of
from quantbench.report.table import Table, TableCell
from quantbench.report.wording import Row

HEADS = ["recipe", "calibration"]

NO_EVIDENCE = Evidence()


def tables(frame: pd.DataFrame, metric: str, evidence: Evidence = NO_EVIDENCE) -> list[Table]:
    """One table per model and scale in the frame of `collate` that has the metric: a line per recipe and text.

    evidence: what tests found (comparisons.csv) and means over draws; without it differences are those of single runs.
    Recipes that are tested under other protocols have a table of their own. Raises StoreError if runs of one recipe
    have scores of two protocols in one column.
    """
    chosen = frame[(frame["metric"] == metric).fillna(False) | frame["metric"].isna()]
    rows = result_rows(chosen)
    if not any(row["metric"] for row in rows) and (metric != DEFAULT_METRICS[0] or frame["metric"].notna().any()):
        return []
    made: dict[str, Table] = {}
    for study in studies_of(rows):
        slug = free_slug([metric, study.model, study.scale_option], made)
        made[slug] = _table(slug, metric, study, evidence)
    return list(made.values())


def free_slug(parts: Iterable[str | None], taken: Iterable[str]) -> str:
    """A file name of the parts that is not taken yet."""
    slug = re.sub(r"[^A-Za-z0-9.=_]+", "-", "-".join(part for part in parts if part)).strip("-.")
    same = sum(other == slug or re.fullmatch(re.escape(slug) + r"-\d+", other) is not None for other in taken)
    return slug if same == 0 else f"{slug}-{same + 1}"


def _table(slug: str, metric: str, study: Study, evidence: Evidence) -> Table:
    rows, names, notes = study.rows, study.columns(), Footnotes()
    of_metric = [row for row in evidence.rows(metric) if study.has(row)]
    cells = Cells(evidence, Index(of_metric), notes)
    lines = lines_of(rows)
    gaps = {task: _own_set(lines, task) for task in names if _has_gap(rows, of_metric, task)}
    waiting = {task for task in names if _is_waiting(rows, task)}
    body = [
        [
            *[TableCell(line.recipe), TableCell(line.calib)],
            *[cell for task in names for cell in _cells(cells, line, task, gaps, waiting)],
        ]
        for line in lines
    ]
    header, follows = list(HEADS), set()
    for task, name in names.items():
        header.append(name)
        if task in gaps:
            follows.add(len(header))
            header.append(f"vs {gaps[task]}-calibrated")
    extra = _extra(lines)
    for at, (title, column) in enumerate(extra, start=len(HEADS)):
        header.insert(at, title)
        body = [[*row[:at], TableCell(text), *row[at:]] for row, text in zip(body, column, strict=True)]
    words = caption(metric, rows)
    if gaps:
        better = next((r["higher_is_better"] for r in rows if r["higher_is_better"] is not None), None)
        words.append(gap_caption([f"vs {name}-calibrated" for name in gaps.values()], better))
    return Table(
        slug=slug,
        title=f"{metric_words(metric, rows)}: {study.title}",
        header=header,
        rows=body,
        caption=[*words, *verdict_caption(cells.verdicts, cells.families)],
        notes=notes.lines(),
        opening=opening(rows, names, [line.n_draws for line in lines if line.n_draws]),
        closing=_closing(metric, study, evidence),
        heads=len(HEADS),
        follows=frozenset(index + len(extra) for index in follows),
    )


def _closing(metric: str, study: Study, evidence: Evidence) -> list[str]:
    """What the comparisons say, and how often a text's own calibration set is best."""
    rows = [row for name in dict.fromkeys((metric, "kl")) for row in evidence.rows(name) if study.has(row)]
    frame = evidence.of(metric)
    own = frame[(frame["model"] == study.model) & (frame["scale"] == study.scale) & (frame["sweep"] == study.sweep)]
    counts = [] if is_left_out(rows, metric) else matched_is_best(own).to_dict("records")
    return [*answers(rows, metric), *map(matched_sentence, counts)]


def _cells(cells: Cells, line: Line, task: str, gaps: dict[str, str], waiting: set[str]) -> list[TableCell]:
    found = [cells.value(line, task)]
    return [*found, cells.gap(line, task, waiting=task in waiting)] if task in gaps else found


def _extra(lines: Sequence[Line]) -> list[tuple[str, list[str]]]:
    """Columns between the names and the tests: bits; tokens and draws, where lines differ in them."""
    bits = [spread((row["effective_bits"] for row in line.all_rows()), ".4g") for line in lines]
    tokens = [spread((row["calib_tokens"] for row in line.all_rows()), ",d") for line in lines]
    draws = [str(line.n_draws or "") for line in lines]
    found = [("bits", bits)] if any(bits) else []
    found += [("tokens", tokens)] if len({one for one in tokens if one}) > 1 else []
    return found + ([("draws", draws)] if len({one for one in draws if one}) > 1 else [])


def _has_gap(rows: Sequence[ResultRow], comparisons: Sequence[Row], task: str) -> bool:
    tested = any(row["kind"] == GAP and row["task"] == task for row in comparisons)
    return tested or any(row["task"] == task and row["transfer_gap"] is not None for row in rows)


def _is_waiting(rows: Sequence[ResultRow], task: str) -> bool:
    return any(row["task"] == task and row["in_distribution"] and row["value"] is None for row in rows)


def _own_set(lines: Sequence[Line], task: str) -> str:
    """What the set calibrated on the task's text is called: by its distribution where there are several."""
    own = [row for line in lines for row in line.rows.get(task, []) if row["in_distribution"]]
    calibs = {row["calib"] for row in own}
    return calibs.pop() if len(calibs) == 1 else str(own[0]["distribution"] if own else task)
