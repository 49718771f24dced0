"""Bits against loss: which recipes are on the front, of those that comparisons do not put behind another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd

from quantbench.metrics.verdict import Verdict
from quantbench.report.caption import metric_words
from quantbench.report.cells import Cells
from quantbench.report.columns import result_rows
from quantbench.report.comparison_columns import RECIPE
from quantbench.report.evidence import Evidence, Index
from quantbench.report.footnotes import Footnotes
from quantbench.report.lines import Line, lines_of
from quantbench.report.opening import opening, spread
from quantbench.report.studies import Study, studies_of
from quantbench.report.table import Table, TableCell
from quantbench.report.tables import free_slug
from quantbench.report.wording import Row, listed, subject

FRONT, BEHIND = "●", "○"


def pareto_tables(frame: pd.DataFrame, metrics: Sequence[str], evidence: Evidence) -> list[Table]:
    """For each metric and study whose recipes differ in effective bits, and are compared: bits against loss.

    A recipe is behind another on a test text only where a comparison says so (`behind`).
    """
    made: dict[str, Table] = {}
    for metric in metrics:
        rows = [row for row in evidence.rows(metric) if row["kind"] == RECIPE]
        for study in studies_of(result_rows(frame[(frame["metric"] == metric).fillna(False)])) if rows else []:
            pairs = [row for row in rows if study.has(row)]
            quantized = [row for row in study.rows if not row["full_precision"]]
            several = len({row["effective_bits"] for row in quantized} - {None}) > 1
            if pairs and several and not (metric == "perplexity" and any(map(study.has, evidence.rows("kl")))):
                slug = free_slug(["bits", metric, study.model, study.scale_option], made)
                made[slug] = _table(slug, metric, study, pairs, evidence)
    return list(made.values())


def behind(row: Row) -> tuple[str, ...]:
    """The keys of the runs of the side that the other one puts behind: "run_ids", "reference_run_ids" or none.

    The other one stores no more bits per weight and is shown to be better, or stores fewer and is shown to be
    equivalent. What is undecided puts nothing behind.
    """
    bits, other, word = row["bits"], row["reference_bits"], row["verdict"]
    if bits is None or other is None:
        return ()
    if (word == Verdict.WORSE and other <= bits) or (word == Verdict.EQUIVALENT and other < bits):
        return ("run_ids",)
    if (word == Verdict.BETTER and bits <= other) or (word == Verdict.EQUIVALENT and bits < other):
        return ("reference_run_ids",)
    return ()


def _table(slug: str, metric: str, study: Study, pairs: Sequence[Row], evidence: Evidence) -> Table:
    names, notes = study.columns(), Footnotes()
    cells = Cells(evidence, Index([]), notes)
    quantized = [row for row in study.rows if not row["full_precision"]]
    lines = sorted(lines_of(quantized), key=_bits_of)
    better = _better(pairs)
    body = [
        [
            *map(TableCell, (line.recipe, line.calib, spread(_known(line, "effective_bits"), ".4g"))),
            TableCell(spread(_known(line, "bits_model"), ".4g")),
            *[_marked(cells.value(line, task), line, task, better, notes) for task in names],
        ]
        for line in lines
    ]
    front = {name: [line for line in lines if _is_front(line, task, better)] for task, name in names.items()}
    return Table(
        slug=slug,
        title=f"Bits against {metric_words(metric, study.rows)}: {study.title}",
        header=["recipe", "calibration", "bits", "bits, whole model", *names.values()],
        rows=body,
        caption=[
            f"{FRONT} on the front: no recipe that stores as few bits per weight is shown to be better, and none that "
            f"stores fewer to be equivalent. {BEHIND} behind one that is. Recipes are compared on one calibration set; "
            "a difference that is undecided puts nothing behind.",
        ],
        notes=notes.lines(),
        opening=opening(study.rows, names, [line.n_draws for line in lines if line.n_draws]),
        closing=[f"On {name}, on the front: {listed(map(_named, on))}." for name, on in front.items() if on],
        heads=2,
    )


def _better(pairs: Sequence[Row]) -> Mapping[tuple[str, str], list[str]]:
    """For each task and run that is behind: what it is behind of."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in pairs:
        for side in behind(row):
            first = side == "run_ids"
            winner = ("reference_recipe", "reference_calib") if first else ("recipe", "calib")
            for run in str(row[side]).split():
                found.setdefault((row["task"], run), []).append(subject(*(row[key] for key in winner)))
    return found


def _marked(
    cell: TableCell, line: Line, task: str, better: Mapping[tuple[str, str], list[str]], notes: Footnotes
) -> TableCell:
    if not _is_scored(line, task):
        return cell
    winners = _behind_of(line, task, better)
    mark = BEHIND + notes.number(f"behind {listed(winners)}") if winners else FRONT
    return TableCell(cell.value, "", f" {mark}{cell.marks}", cell.in_distribution)


def _behind_of(line: Line, task: str, better: Mapping[tuple[str, str], list[str]]) -> list[str]:
    runs = [row["run_id"] or "" for row in line.rows.get(task, [])]
    return list(dict.fromkeys(name for run in runs for name in better.get((task, run), [])))


def _is_scored(line: Line, task: str) -> bool:
    return any(row["value"] is not None for row in line.rows.get(task, []))


def _is_front(line: Line, task: str, better: Mapping[tuple[str, str], list[str]]) -> bool:
    return _is_scored(line, task) and not _behind_of(line, task, better)


def _named(line: Line) -> str:
    return f"{subject(line.recipe, line.calib)} ({spread(_known(line, 'effective_bits'), '.4g')} bits)"


def _known(line: Line, column: str) -> list[Any]:
    return [cast("Mapping[str, Any]", row)[column] for row in line.all_rows()]


def _bits_of(line: Line) -> float:
    return min((row["effective_bits"] or float("inf") for row in line.all_rows()), default=float("inf"))
