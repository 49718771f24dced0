"""Cost against loss: which recipes are on the front, of those that comparisons do not put behind another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd

from quantbench.metrics.verdict import Verdict
from quantbench.report.axes import BITS, Axis
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


def pareto_tables(
    frame: pd.DataFrame, metrics: Sequence[str], evidence: Evidence, axis: Axis = BITS, *, asked: bool = False
) -> list[Table]:
    """For each metric and study whose recipes differ in their cost, and are compared: cost against loss.

    A recipe is behind another on a test text only where a comparison says so (`behind`).

    axis   the cost, a column of the frame
    asked  tables of all metrics named, and of recipes that cost the same or are not compared, too
    """
    costs = costs_of(frame, axis)
    made: dict[str, Table] = {}
    for metric in metrics:
        rows = [row for row in evidence.rows(metric) if row["kind"] == RECIPE]
        own = result_rows(frame[(frame["metric"] == metric).fillna(False)])
        for study in studies_of(own) if rows or asked else []:
            pairs = [row for row in rows if study.has(row)]
            quantized = [row for row in study.rows if not row["full_precision"]]
            several = len({costs.get(row["run_id"] or "") for row in quantized} - {None}) > 1
            shown = pairs and several and not (metric == "perplexity" and any(map(study.has, evidence.rows("kl"))))
            if quantized and (asked or shown):
                slug = free_slug([axis.name, metric, study.model, study.scale_option], made)
                made[slug] = _table(slug, metric, study, pairs, evidence, axis, costs)
    return list(made.values())


def behind(row: Row) -> tuple[str, ...]:
    """The keys of the runs of the side that the other one puts behind: "run_ids", "reference_run_ids" or none.

    The other one stores no more bits per weight and is shown to be better, or stores fewer and is shown to be
    equivalent. What is undecided puts nothing behind.
    """
    return _behind(row["verdict"], row["bits"], row["reference_bits"])


def costs_of(frame: pd.DataFrame, axis: Axis) -> dict[str, float]:
    """What each run of the results costs; none of those of which it is not known."""
    known = frame[frame["run_id"].notna() & frame[axis.column].notna()].drop_duplicates("run_id")
    return dict(zip(known["run_id"].astype(str), known[axis.column].astype(float), strict=True))


def behind_by(row: Row, costs: Mapping[str, float]) -> tuple[str, ...]:
    """As `behind`, by another cost: run id -> cost."""
    return _behind(row["verdict"], _mean(row["run_ids"], costs), _mean(row["reference_run_ids"], costs))


def _behind(word: str, cost: float | None, other: float | None) -> tuple[str, ...]:
    if cost is None or other is None:
        return ()
    if (word == Verdict.WORSE and other <= cost) or (word == Verdict.EQUIVALENT and other < cost):
        return ("run_ids",)
    if (word == Verdict.BETTER and cost <= other) or (word == Verdict.EQUIVALENT and cost < other):
        return ("reference_run_ids",)
    return ()


def _mean(runs: str, costs: Mapping[str, float]) -> float | None:
    """What the runs of an arm cost on average; None if it is not known of one."""
    found = [costs.get(run) for run in str(runs).split()]
    known = [cost for cost in found if cost is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(found) else None


def _table(
    slug: str,
    metric: str,
    study: Study,
    pairs: Sequence[Row],
    evidence: Evidence,
    axis: Axis,
    costs: Mapping[str, float],
) -> Table:
    names, notes = study.columns(), Footnotes()
    cells = Cells(evidence, Index([]), notes)
    quantized = [row for row in study.rows if not row["full_precision"]]
    lines = sorted(lines_of(quantized), key=lambda line: min(_costs(line, costs), default=math.inf))
    better = _better(pairs, axis, costs)
    second = ("bits, whole model", "bits_model") if axis is BITS else ("bits", "effective_bits")
    body = [
        [
            *map(TableCell, (line.recipe, line.calib, spread(_costs(line, costs), axis.form))),
            TableCell(spread(_known(line, second[1]), ".4g")),
            *[_marked(cells.value(line, task), line, task, better, notes) for task in names],
        ]
        for line in lines
    ]
    front = {name: [line for line in lines if _is_front(line, task, better)] for task, name in names.items()}
    return Table(
        slug=slug,
        title=f"{axis.head} against {metric_words(metric, study.rows)}: {study.title}",
        header=["recipe", "calibration", "bits" if axis is BITS else axis.title, second[0], *names.values()],
        rows=body,
        caption=[
            f"{FRONT} on the front: no recipe that {_words(axis)[0]} is shown to be better, and none that "
            f"{_words(axis)[1]} to be equivalent. {BEHIND} behind one that is. Recipes are compared on one calibration "
            "set; a difference that is undecided puts nothing behind.",
        ],
        notes=notes.lines(),
        opening=opening(study.rows, names, [line.n_draws for line in lines if line.n_draws]),
        closing=[
            f"On {name}, on the front: {listed(_named(line, axis, costs) for line in on)}."
            for name, on in front.items()
            if on
        ],
        heads=2,
    )


def _words(axis: Axis) -> tuple[str, str]:
    """To cost no more, and less, in the words of the cost."""
    if axis is BITS:
        return "stores as few bits per weight", "stores fewer"
    return f"costs as little ({axis.title})", "costs less"


def _better(pairs: Sequence[Row], axis: Axis, costs: Mapping[str, float]) -> Mapping[tuple[str, str], list[str]]:
    """For each task and run that is behind: what it is behind of."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in pairs:
        for side in behind(row) if axis is BITS else behind_by(row, costs):
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


def _named(line: Line, axis: Axis, costs: Mapping[str, float]) -> str:
    unit = "bits" if axis is BITS else axis.unit
    return f"{subject(line.recipe, line.calib)} ({spread(_costs(line, costs), axis.form)} {unit})"


def _known(line: Line, column: str) -> list[Any]:
    return [cast("Mapping[str, Any]", row)[column] for row in line.all_rows()]


def _costs(line: Line, costs: Mapping[str, float]) -> list[float]:
    runs = dict.fromkeys(row["run_id"] or "" for row in line.all_rows())
    return [costs[run] for run in runs if run in costs]
